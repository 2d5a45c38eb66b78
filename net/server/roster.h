#pragma once

#include <weir/core/event_loop.h>
#include <weir/coro/list.h>
#include <weir/coro/task.h>
#include <weir/net/connection.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace weir::detail {

class LogLine;

/// Somebody on the way through a roster, which keeps that right while connections go.
struct Walker {
  Link link;
  Connection* next = nullptr;
};

/// The connections of a server on one loop, in the order of their numbers, and those that are
/// closed but that a handler has yet. Loop's thread only.
class Roster {
 public:
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] Connection* front() const noexcept { return open_.front(); }
  [[nodiscard]] Connection* after(Connection& connection) const noexcept {
    return open_.after(connection);
  }
  /// In place of its loop's list.
  void add(Connection& connection) noexcept;
  void remove(Connection& connection) noexcept;
  /// One that was removed: its descriptor is closed.
  void add_ended(Connection& connection) noexcept { ended_.push_back(connection); }

  /// nullptr if it is not open. A search.
  [[nodiscard]] Connection* find(std::uint64_t id) const noexcept;
  /// A connection's name, or as much of it as is known yet and there is memory for. A search
  /// through all of them: for some failures only.
  void write_name(LogLine& line, std::string_view server, std::uint64_t id) const noexcept;
  /// Bytes that have gone on all that were ever here.
  [[nodiscard]] std::uint64_t sent() const noexcept;

  /// Begins at the first.
  void begin(Walker& walker) noexcept;
  /// Resets those on its way, up to this number.
  void cut(Walker& walker, std::uint64_t last) noexcept;
  /// Whoever is on the way has come to the end.
  void end_walks() noexcept;

 private:
  List<Connection> open_;
  List<Connection> ended_;
  List<Walker> walkers_;
  std::size_t size_ = 0;
  std::uint64_t sent_by_ended_ = 0;
};

/// Ends for ever those of which nothing was seen for that long, looked at now and then.
using IdleRoundsOf = unsigned (Connection::*)() noexcept;
Task<> end_overdue(Roster& roster, std::chrono::milliseconds limit, IdleRoundsOf rounds, int error,
                   bool with_reset);

}  // namespace weir::detail
