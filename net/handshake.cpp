#include <weir/core/sleep.h>
#include <weir/coro/timeout.h>
#include <weir/net/connection_access.h>
#include <weir/net/handshake.h>

#include <cerrno>
#include <stdexcept>
#include <utility>

namespace weir::detail {
namespace {

/// Under way on one loop. Each takes some 40 KB.
constexpr std::size_t kMostUnderWay = 1024;

/// Of a turn, for steps: less than one takes that works with a private key.
constexpr auto kTimeOfTurn = std::chrono::microseconds(200);
/// Where the clock stands still.
constexpr unsigned kMostOfTurn = 16;

Task<> shake_hands(Connection& connection, Handshake& handshake, HandshakeGate* gate) {
  while (!handshake.done()) {
    if (handshake.has_work()) {
      Semaphore::Permit permit;
      if (gate != nullptr) permit = co_await gate->enter();
      const TimePoint began = connection.loop().machine().now();
      const std::size_t before = connection.inbox().unread();
      const Failure failure = handshake.work(connection.inbox());
      connection.identity().count_received(connection.inbox().unread() - before);
      connection.transforming().worked(failure);
      if (failure == 0) connection.receiver().update();
      // What was queued meanwhile goes, also where the handshake's last word was the peer's.
      if (handshake.done() && connection.outbox().pending() > 0) connection.transmitter().start();
      if (gate != nullptr) gate->leave(std::move(permit), began);
      // Once it is done what comes behind it is for whoever uses the connection to hear of.
      if (failure != 0 && !handshake.done()) handshake.throw_failure();
    } else {
      handshake.news.reset();
      co_await handshake.news.wait();
    }
  }
}

}  // namespace

Task<Semaphore::Permit> HandshakeGate::enter() {
  Semaphore::Permit permit = co_await step_.acquire(1);
  co_await yield();  // those go first who became ready during the last step
  co_return permit;
}

void HandshakeGate::leave(Semaphore::Permit permit, TimePoint began) {
  taken_ += loop_.machine().now() - began;
  if (++made_ >= kMostOfTurn || taken_ >= kTimeOfTurn) kept_ = std::move(permit);
  loop_.at_turn_end(*this);
}

void HandshakeGate::end_turn() noexcept {
  taken_ = {};
  made_ = 0;
  kept_.release();
  loop_.engine().wake();  // whoever may go on now is to be seen to before the loop sleeps
}

HandshakeGate::UnderWay::UnderWay(HandshakeGate& gate, Connection& connection)
    : gate_(gate), connection_(connection) {
  gate.under_way_.push_back(*this);
  if (++gate.count_ <= kMostUnderWay) return;
  --gate.count_;
  gate.under_way_.pop_front()->connection_.ending().cut(kClosedHere, true);
}

HandshakeGate::UnderWay::~UnderWay() {
  if (link.linked()) --gate_.count_;
  link.unlink();
}

Task<> agree(Connection& connection, std::unique_ptr<Handshake> made,
             std::chrono::milliseconds limit, HandshakeGate* gate) {
  Handshake& handshake = *made;
  connection.transforming().begin(std::move(made));
  // Whoever is dropped here leaves a connection that nobody can understand.
  struct CutOff {
    Connection* connection;
    ~CutOff() {
      if (connection != nullptr) connection->ending().cut(kClosedHere, true);
    }
  } cut_off{&connection};
  try {
    Task<> task = shake_hands(connection, handshake, gate);
    if (limit.count() > 0) {
      co_await timeout(limit, std::move(task));
    } else {
      co_await std::move(task);
    }
  } catch (const std::system_error& error) {
    // What was said about it is to arrive.
    if (error.code() != errc::deadline) cut_off.connection = nullptr;
    throw;
  }
  cut_off.connection = nullptr;
}

Task<> secure(TcpConnection& connection, std::shared_ptr<HandshakeFactory> factory,
              std::string peer, HandshakeGate* gate) {
  Connection* of = ConnectionAccess::of(connection);
  if (of == nullptr) throw std::logic_error("weir: TLS: the connection is not connected");
  if (of->transform() != nullptr) {
    throw std::logic_error("weir: TLS: the connection is transformed already");
  }
  if (of->inbox().has_reader()) {
    throw std::logic_error("weir: TLS: somebody reads from the connection");
  }
  std::unique_ptr<Handshake> made = factory->make(peer);
  co_await agree(*of, std::move(made), factory->handshake_timeout(), gate);
}

std::string_view host_of(std::string_view name) noexcept {
  if (name.starts_with("unix:")) return {};
  name = name.substr(0, name.rfind(':'));
  if (name.starts_with('[') && name.ends_with(']')) name = name.substr(1, name.size() - 2);
  return name;
}

}  // namespace weir::detail
