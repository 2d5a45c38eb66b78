#include <weir/core/event_loop.h>
#include <weir/coro/owner.h>
#include <weir/net/stream/paired_stream.h>

#include <cerrno>

namespace weir {
namespace detail {

/// Both ends, and what moves the bytes between them at the end of a turn. It lives as long as one
/// of its handles, which may be longer than the loop does.
class StreamPair final : public LoopResource, public FrameAllocated {
 public:
  StreamPair(EventLoop& loop, const PairOptions& options) noexcept
      : loop_(loop), ends_{{*this, options}, {*this, options}} {
    loop_.keep(*this);
  }

  [[nodiscard]] Inbox& inbox(int end) noexcept { return ends_[end].inbox; }
  [[nodiscard]] Outbox& outbox(int end) noexcept { return ends_[end].outbox; }

  void close(int end) noexcept {
    if (!loop_ended_) check_owner(loop_, "a PairedStream", "a Channel");
    ends_[end].inbox.close();
    ends_[end].closed = true;
    ends_[end].outbox.close();
    want_turn();
  }
  void drop(int end) noexcept {
    close(end);
    if (std::exchange(dropped_, true)) delete this;
  }

 private:
  struct End final : Outbox::Sink {
    End(StreamPair& of, const PairOptions& options) noexcept
        : pair(of), inbox(*this, options.input_high), outbox(*this, options.water_marks) {}

    void input_wanted() noexcept override { pair.want_turn(); }
    void output_alone() noexcept override { pair.want_turn(); }
    void output_ready() noexcept override { pair.want_turn(); }
    void output_finished() noexcept override {
      finished = true;
      pair.want_turn();
    }
    void output_failed(Failure failure) noexcept override {
      outbox.fail(failure);
      outbox.clear();
      pair.other(*this).inbox.fail(ECONNRESET, false);
    }

    StreamPair& pair;
    Inbox inbox;
    Outbox outbox;
    bool finished = false;
    bool closed = false;
  };

  [[nodiscard]] End& other(const End& end) noexcept { return ends_[&end == &ends_[0] ? 1 : 0]; }
  void want_turn() noexcept {
    if (!loop_ended_) loop_.at_turn_end(*this);
  }

  void end_with_loop() noexcept override {
    loop_ended_ = true;
    unlink();
    call_off();
    for (End& end : ends_) {
      end.inbox.close();
      end.outbox.fail(kClosedHere);
      end.outbox.clear();
    }
  }

  void end_turn() noexcept override {
    for (End& end : ends_) move(end, other(end));
  }

  void move(End& from, End& to) noexcept {
    while (!from.outbox.queue().empty()) {
      if (!to.closed && !to.inbox.wants_input(false)) return;
      const Segment& next = from.outbox.queue().front();
      const std::size_t size = next.size();
      try {
        if (!to.closed) to.inbox.push(next.buffer, next.data(), size);
      } catch (...) {
        from.output_failed(ENOMEM);
        return;
      }
      from.outbox.sent(size);
    }
    if (!std::exchange(from.finished, false)) return;
    to.inbox.end();
    from.outbox.ended();
  }

  EventLoop& loop_;
  End ends_[2];
  bool dropped_ = false;
  bool loop_ended_ = false;
};

}  // namespace detail

void PairedStream::close() noexcept {
  if (pair_ != nullptr) pair_->close(end_);
}

detail::Inbox* PairedStream::inbox() const noexcept {
  return pair_ == nullptr ? nullptr : &pair_->inbox(end_);
}

detail::Outbox* PairedStream::outbox() const noexcept {
  return pair_ == nullptr ? nullptr : &pair_->outbox(end_);
}

void PairedStream::reset() noexcept {
  if (detail::StreamPair* pair = std::exchange(pair_, nullptr)) pair->drop(end_);
}

StreamEnds stream_pair(PairOptions options) {
  detail::check(options.water_marks, options.input_high, "PairOptions");
  auto* pair = new detail::StreamPair(EventLoop::current(), options);
  return {PairedStream(*pair, 0), PairedStream(*pair, 1)};
}

}  // namespace weir
