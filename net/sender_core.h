#pragma once

#include <weir/core/mailbox.h>
#include <weir/coro/list.h>
#include <weir/coro/scheduler.h>
#include <weir/net/stream/shared_bytes.h>

#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace weir::detail {

class Connection;
class Outbox;

/// What all senders of one connection share with its outbox. Any thread, but for the members that
/// say otherwise.
class SenderCore : public std::enable_shared_from_this<SenderCore> {
 public:
  /// A `Sender::send` that waits for room, on whichever loop.
  struct Node {
    Link link;
    OtherMessage message;
    Waiter waiter;
    bool sent = false;
    bool out_of_memory = false;
  };

  /// Connection's thread.
  SenderCore(Connection& connection, Outbox& outbox);
  SenderCore(const SenderCore&) = delete;
  SenderCore& operator=(const SenderCore&) = delete;
  ~SenderCore();

  /// False if the connection is closed or its queue at or above the mark; the message is then as
  /// it was, as it is if this throws.
  bool try_send(OtherMessage&& message);
  /// True if the node need not wait.
  bool send_or_wait(Node& node, std::coroutine_handle<> handle);
  void forget(Node& node) noexcept;
  [[nodiscard]] bool open();
  /// Has the connection closed, or reset, in a turn of its loop.
  void end(bool with_reset);

  // Connection's thread.
  void set_marks(std::size_t high, std::size_t low);
  /// There is room in the outbox: lets those in who wait.
  void admit() noexcept;
  /// Hands what has been sent by now over to the outbox.
  void drain() { hand_over(false); }
  /// The same; nothing is accepted any more.
  void close() { hand_over(true); }
  /// The connection goes.
  void forget_connection() noexcept { connection_ = nullptr; }

 private:
  [[nodiscard]] std::unique_lock<std::mutex> locked();
  void become_parents() noexcept;
  bool try_send_here(OtherMessage& message);
  bool put(OtherMessage&& message);
  void queue(OtherMessage&& message);
  void schedule();
  void hand_over(bool last);
  void admit_waiting() noexcept;
  static void wake(Node& node) noexcept;

  const Scheduler* home_;
  std::mutex mutex_;
  Outbox* outbox_;          // nullptr once closed
  Connection* connection_;  // what `end` ends, its thread's: until it goes, closed or not
  std::shared_ptr<Mailbox> mailbox_;
  std::vector<OtherMessage> queue_;  // on the way to the outbox
  std::size_t queued_ = 0;           // bytes of it, and of what is being handed over
  std::size_t high_;
  std::size_t low_;
  bool scheduled_ = false;
  List<Node> waiting_;
};

}  // namespace weir::detail
