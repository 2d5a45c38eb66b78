#pragma once

#include <weir/coro/scheduler.h>
#include <weir/net/connection_options.h>
#include <weir/net/stream/failure.h>
#include <weir/net/stream/high_water.h>
#include <weir/net/stream/inbox.h>
#include <weir/net/stream/outgoing.h>
#include <weir/net/stream/shared_bytes.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace weir::detail {

class SenderCore;

/// What goes out and has not gone yet: segments, those who wait to send or for a flush, marks, and
/// in the end an end or a failure. It knows neither where the bytes go nor a loop; its sink is
/// told that there is something, takes slices and says how many went. One thread, but where a
/// member says otherwise.
class Outbox : public Outgoing {
 public:
  /// A source as well, for nearly always one object is both, and has one table then.
  class Sink : public Inbox::Source {
   public:
    void input_wanted() noexcept override {}
    /// A message came, and is all that there is.
    virtual void output_alone() noexcept = 0;
    /// Ends the process where it belongs to another thread.
    virtual void check_thread() const noexcept {}
    /// Whether it will look once more at how long that message is.
    [[nodiscard]] virtual bool looks_again() const noexcept { return false; }
    /// There is more to send than before.
    virtual void output_ready() noexcept = 0;
    /// All has gone, and no more will come: once. `ended` is to follow.
    virtual void output_finished() noexcept = 0;
    /// What was promised cannot be queued: `fail` is to follow.
    virtual void output_failed(Failure failure) noexcept = 0;

   protected:
    ~Sink() = default;
  };

  /// What waits here. Once it need not wait any more the outbox may go before it does. With what
  /// broke the stream it is told when it resumes; if it is dropped before, the next who asks is.
  struct Waiting : Waiter {
    explicit Waiting(Outbox* of, std::uint64_t count = 0) noexcept : outbox(of), bytes(count) {}
    Waiting(Waiting&& other) noexcept
        : Waiter(), outbox(other.outbox), bytes(other.bytes), shuts(other.shuts) {}
    ~Waiting() {
      if (untold) outbox->forget(*this);
    }
    /// The failure it ends with, or 0.
    Failure take_failure() noexcept {
      if (untold) outbox->failure_ = 0;
      return failure;
    }
    [[nodiscard]] bool waits() const noexcept { return linked() && outbox != nullptr && !untold; }

    Outbox* outbox;  // nullptr once it need not wait any more
    union {
      std::uint64_t bytes;   // see who derives from this
      Waiting* next_untold;  // in place of that: it is about to be told, and stands in the
    };  // outbox's list of those
    Failure failure = 0;
    bool untold = false;
    // Of those who derive from this, in its padding:
    bool tried = false;     // a send that was not plain
    bool accepted = false;  // that waits for the queue to go down
    bool shuts = false;     // a flush for a shutdown
  };

  /// A send of `bytes` from `data` on: it waits to be accepted, or, accepted, for the queue to go
  /// down.
  struct Send : Waiting {
    Send(Outbox* to, BufferRef&& owner, const std::byte* first, std::size_t count) noexcept
        : Waiting(to, count), data(first), buffer(std::move(owner)) {}
    Send(Send&& other) noexcept
        : Waiting(static_cast<Waiting&&>(other)),
          data(other.data),
          buffer(std::move(other.buffer)) {}

    const std::byte* data;
    BufferRef buffer;  // the owner of the bytes; empty where they have to be copied
  };

  /// A flush that waits until the first `bytes` of the stream have gone, or a shutdown, until the
  /// end has.
  struct Flush : Waiting {
    using Waiting::Waiting;
    Flush(Flush&& other) noexcept = default;
  };

  Outbox(Sink& sink, WaterMarks marks) noexcept;
  Outbox(const Outbox&) = delete;
  Outbox& operator=(const Outbox&) = delete;
  ~Outbox();

  // For those who send.
  /// Whether a message of that size would be all that there is, and need not wait.
  [[nodiscard]] bool takes_alone(std::size_t size) const noexcept {
    // As unsigned numbers: neither nothing at all nor the high mark and above.
    return level_.unobstructed() && pending() == 0 && size - 1 < std::size_t{high_} - 1;
  }
  /// Queues a message if that is all there is to do. False if it is not: `try_send` does it then.
  [[gnu::always_inline]] bool try_send_plain(BufferRef& buffer, const std::byte* data,
                                             std::size_t size) noexcept {
    if (!takes_alone(size) || !buffer || data == nullptr) return false;
    level_.set_pending(size);
    queue_.push_alone(std::move(buffer), data, size);
    sink_.output_alone();
    return true;
  }
  /// Makes the message that is alone longer by a copy of these bytes, if that is all there is to
  /// do.
  bool try_send_behind(const std::byte* data, std::size_t size) noexcept {
    const std::size_t all = pending();
    if (!level_.unobstructed() || all == 0 || all + size >= high_ || !sink_.looks_again() ||
        !queue_.extend(data, size)) {
      return false;
    }
    level_.set_pending(all + size);
    return true;
  }
  /// The same, or sends it alone. Throws `std::bad_alloc`, with nothing queued.
  bool try_send_copy(const std::byte* data, std::size_t size);
  /// Queues what may be queued now. True if the send need not wait.
  bool try_send(Send& send);
  void wait(Send& send);
  void drop(Send& send) noexcept;
  bool try_flush(Flush& flush) noexcept;
  /// The same, and nothing is accepted from now on: the end follows what is queued.
  bool try_end(Flush& flush) noexcept;
  void wait(Flush& flush);
  void set_marks(WaterMarks marks);
  void on_high_water(std::function<void(std::size_t)> function);

  // For the senders of other threads.
  /// Queues what they have sent.
  void take_over(std::vector<OtherMessage>&& messages) noexcept;
  /// Queues a message that comes on this thread, if that is all there is to do. Throws
  /// `std::bad_alloc`; the message is as it was then, as it is where this is false.
  bool try_take_over(OtherMessage& message);
  /// What they share, nullptr until `set_others`.
  [[nodiscard]] std::shared_ptr<SenderCore> others() const noexcept;
  void set_others(std::shared_ptr<SenderCore> others);
  [[nodiscard]] WaterMarks marks() const noexcept { return {high_, low_}; }

  // For the sink.
  /// What is nearly always the case: all that there was has gone, and nobody waits for that.
  [[gnu::always_inline]] bool sent_plain(std::int32_t count) noexcept {
    const std::size_t all = pending();
    if (!level_.unobstructed() || static_cast<std::size_t>(count) != all) {
      return false;
    }
    rounds_.reset();
    sent_ += all;
    level_.set_pending(0);
    queue_.pop_alone();
    return true;
  }
  void sent(std::size_t count) noexcept;
  /// The end has gone.
  void ended() noexcept;
  /// nullptr where nobody has asked for anything of the kind.
  [[nodiscard]] HighWater* high_water() const noexcept;
  /// It broke: nothing is accepted any more, and those who wait are told.
  void fail(Failure failure) noexcept;
  /// Nobody sends any more: those who wait end with that, and the end follows what is queued.
  void close() noexcept;

 private:
  class Waiters;
  struct Extras;  // what few need

  Extras& extras();
  void accept(Send& send);
  void added(bool was_below) noexcept;
  void admit() noexcept;
  void want_end() noexcept;
  void finish_if_due() noexcept;
  void end_waiting(Failure failure, bool broken) noexcept;
  void forget(Waiting& waiting) noexcept;
  Failure take_failure() noexcept;

  std::uint32_t high_;  // in the padding of what this derives from
  Sink& sink_;
  std::uint32_t low_;
  Failure failure_ = 0;  // not told yet
  std::unique_ptr<Extras> extras_;
};

}  // namespace weir::detail
