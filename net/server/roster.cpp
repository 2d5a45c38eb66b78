#include <weir/core/log_line.h>
#include <weir/core/sleep.h>
#include <weir/net/server/roster.h>

#include <new>
#include <string_view>

namespace weir::detail {
namespace {

/// The deadlines of connections are looked at this often while they run.
constexpr unsigned kRounds = 8;

}  // namespace

void Roster::add(Connection& connection) noexcept {
  open_.push_back(connection);
  ++size_;
}

void Roster::remove(Connection& connection) noexcept {
  for (Walker* walker = walkers_.front(); walker != nullptr; walker = walkers_.after(*walker)) {
    if (walker->next == &connection) walker->next = open_.after(connection);
  }
  connection.unlink();
  --size_;
  sent_by_ended_ += connection.outbox().gone();
}

Connection* Roster::find(std::uint64_t id) const noexcept {
  Connection* connection = open_.front();
  while (connection != nullptr && connection->identity().id() != id) {
    connection = open_.after(*connection);
  }
  return connection;
}

void Roster::write_name(LogLine& line, std::string_view server, std::uint64_t id) const noexcept {
  for (const auto* list : {&open_, &ended_}) {
    for (Connection* one = list->front(); one != nullptr; one = list->after(*one)) {
      if (one->identity().id() != id) continue;
      try {
        line << std::string_view(one->identity().name());
        return;
      } catch (const std::bad_alloc&) {
      }
    }
  }
  line << server << "-#" << id;
}

std::uint64_t Roster::sent() const noexcept {
  std::uint64_t sum = sent_by_ended_;
  for (Connection* one = open_.front(); one != nullptr; one = open_.after(*one)) {
    sum += one->outbox().gone();
  }
  return sum;
}

void Roster::begin(Walker& walker) noexcept {
  walkers_.push_back(walker);
  walker.next = open_.front();
}

void Roster::cut(Walker& walker, std::uint64_t last) noexcept {
  while (Connection* connection = walker.next) {
    if (connection->identity().id() > last) return;
    walker.next = open_.after(*connection);
    connection->ending().cut(kClosedHere, true);
  }
}

void Roster::end_walks() noexcept {
  while (Walker* walker = walkers_.pop_front()) walker->next = nullptr;
}

Task<> end_overdue(Roster& roster, std::chrono::milliseconds limit, IdleRoundsOf rounds, int error,
                   bool with_reset) {
  const auto period = to_duration(limit) / kRounds;
  for (;;) {
    co_await sleep(period);
    for (Connection* one = roster.front(); one != nullptr;) {
      Connection* next = roster.after(*one);
      if ((one->*rounds)() >= kRounds) one->ending().cut(error, with_reset);
      one = next;
    }
  }
}

}  // namespace weir::detail
