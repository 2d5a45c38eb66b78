#pragma once

#include <weir/core/mailbox.h>
#include <weir/coro/list.h>
#include <weir/coro/scheduler.h>

#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace weir {

class Stream;

/// What all senders of one connection share with its stream. Any thread, but for the members that
/// say otherwise.
class SenderCore : public std::enable_shared_from_this<SenderCore> {
 public:
  /// A `Sender::send` that waits for room, on whichever loop.
  struct Node : Link {
    std::string message;
    Waiter waiter;
    bool sent = false;
  };

  SenderCore(Stream& stream, std::shared_ptr<Mailbox> mailbox, std::size_t high, std::size_t low);

  /// False if the connection is closed or its queue at or above the mark; the message is then as
  /// it was.
  bool try_send(std::string&& message);
  /// True if the node need not wait.
  bool send_now(Node& node);
  bool send_or_wait(Node& node, std::coroutine_handle<> handle);
  void forget(Node& node);
  [[nodiscard]] bool open() const;
  /// Has the stream closed, or reset, in a turn of its loop.
  void end(bool with_reset);

  // Stream's thread.
  void set_marks(std::size_t high, std::size_t low);
  void publish(std::size_t pending);  // the bytes in the stream's own queue
  /// Hands what has been sent by now over to the stream.
  void drain() { hand_over(false); }
  /// The same; nothing is accepted any more.
  void close() { hand_over(true); }
  /// The stream goes.
  void forget_stream() noexcept { ending_ = nullptr; }

 private:
  bool put(std::string&& message);
  void schedule();
  void hand_over(bool last);
  void admit();
  void wake(Node& node);
  void wake_here();

  mutable std::mutex mutex_;
  Stream* stream_;  // nullptr once closed
  Stream* ending_;  // what `end` ends, its thread's: until it goes, closed for sending or not
  std::shared_ptr<Mailbox> mailbox_;
  std::vector<std::string> queue_;  // on the way to the stream
  std::size_t queued_ = 0;          // bytes of it
  std::size_t pending_ = 0;         // bytes in the stream
  std::size_t high_;
  std::size_t low_;
  bool scheduled_ = false;
  List<Node> waiting_;
  List<Node> waking_;  // sent or refused, and on the way back to their loops
};

}  // namespace weir
