#pragma once

#include <weir/coro/scheduler.h>
#include <weir/net/stream/chunk.h>
#include <weir/net/stream/failure.h>
#include <weir/net/stream/segment_queue.h>

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace weir::detail {

/// What came in and was not read yet: segments, one reader, a mark, and in the end an end or a
/// failure. It knows neither where the bytes come from nor any loop but its reader's; its source
/// pushes them, and is asked to go on once there is room. One thread.
class Inbox {
 public:
  class Source {
   public:
    /// Somebody waits, or something was read, while bytes do not come by themselves: `wants_input`
    /// may say something else now.
    virtual void input_wanted() noexcept = 0;

   protected:
    ~Source() = default;
  };

  /// A read from when it waits until it resumes or is dropped. One at a time.
  struct Reader {
    explicit Reader(Inbox* of) noexcept : inbox(of) {}
    // The one moved from lives on in its full expression, maybe longer than the inbox.
    Reader(Reader&& other) noexcept : inbox(std::exchange(other.inbox, nullptr)) {}
    ~Reader() { leave(); }
    void leave() noexcept {
      if (inbox != nullptr && inbox->reader_ == this) inbox->reader_ = nullptr;
    }

    Inbox* inbox;  // nullptr once it was closed under it
    Waiter waiter;
  };

  /// One that not just any bytes are enough for.
  struct PatientReader : Reader {
    /// Whether it can finish with what is there. Asked whenever bytes come in.
    using Satisfied = bool (*)(PatientReader&) noexcept;

    PatientReader(Inbox* of, Satisfied enough) noexcept : Reader(of), satisfied(enough) {}
    PatientReader(PatientReader&&) noexcept = default;
    ~PatientReader() { leave(); }
    void leave() noexcept {
      if (inbox != nullptr && inbox->reader_ == this) inbox->reader_is_patient_ = false;
      Reader::leave();
    }

    Satisfied satisfied;
  };

  Inbox(Source& source, std::size_t high) noexcept : source_(source), high_(mark_of(high)) {}
  Inbox(const Inbox&) = delete;
  Inbox& operator=(const Inbox&) = delete;
  ~Inbox() {
    if (reader_ != nullptr) reader_->inbox = nullptr;  // it is about to resume
  }

  // For those who read.
  [[nodiscard]] std::size_t unread() const noexcept { return unread_; }
  /// See `SegmentQueue::leases`.
  std::size_t leases(std::vector<const Buffer*>& into) { return segments_.leases(into); }
  /// Nothing comes any more.
  [[nodiscard]] bool at_end() const noexcept { return end_ != End::none; }
  /// Nothing is there, and something comes by itself.
  [[nodiscard]] bool waits_for_bytes() const noexcept { return flowing_ && unread_ == 0; }
  /// Whether a read waits, or is about to resume.
  [[nodiscard]] bool has_reader() const noexcept { return reader_ != nullptr; }
  /// Of whoever waits in a read, or nullptr.
  [[nodiscard]] const Scope* reader_scope() const noexcept {
    return reader_ != nullptr ? reader_->waiter.scope() : nullptr;
  }
  /// Throws `std::logic_error` where another read waits.
  void wait(Reader& reader) {
    if (reader_ == nullptr && flowing_ && unread_ == 0) [[likely]] {
      reader_ = &reader;
    } else {
      wait_slowly(reader);
    }
  }
  void wait(PatientReader& reader) {
    if (reader_ == nullptr) reader_is_patient_ = true;
    wait(static_cast<Reader&>(reader));
  }
  /// The first piece of what is unread, empty if there is none.
  Chunk take_some() noexcept {
    if (segments_.size() != 1) [[unlikely]]
      return take_first();
    Segment& only = segments_.only();
    Chunk chunk(std::move(only.buffer), only.data(), only.size());
    segments_.pop_only();
    consumed(chunk.size());
    return chunk;
  }
  /// The same, of no more than `most` bytes.
  Chunk take_most(std::size_t most) noexcept;
  /// `count` unread bytes in one piece.
  Chunk take_exactly(std::size_t count);
  /// The same bytes, which stay unread.
  Chunk peek(std::size_t count);
  /// How many of the first `most` unread bytes it takes to have the delimiter; 0 if it is not
  /// there. `scanned` remembers where the search ended, from call to call.
  std::size_t find(std::string_view delimiter, std::size_t most, std::size_t& scanned);
  /// Why there is no more to read: what broke the stream, once; 0 at a clean end.
  Failure why_ended() noexcept;

  // For the source.
  /// What is nearly always the case: some bytes, and nothing before them.
  [[nodiscard]] bool takes_plain(std::size_t size) const noexcept {
    return unread_ == 0 && size < high_;
  }
  /// Takes them if it is. Not after the end.
  [[gnu::always_inline]] void push_plain(Buffer& buffer, std::size_t size) noexcept {
    unread_ = size;
    segments_.push_first(BufferRef(buffer), buffer.data(), size);
    Reader* reader = reader_;  // who is about to resume has bytes, or the end
    if (reader == nullptr) return;
    buffer.set_read_at(reader->waiter.place());
    if (reader_is_patient_) {
      wake_reader();
    } else {
      reader->waiter.wake_unlinked();
    }
  }
  /// Throws `std::bad_alloc`, with nothing taken. Not after the end.
  void push(BufferRef buffer, const std::byte* data, std::size_t size);
  /// The peer has said all.
  void end() noexcept;
  /// The stream broke: told once, behind what came before. Not after a clean end. `here`: by this
  /// side, for all who read later.
  void fail(Failure failure, bool here) noexcept;
  /// Nobody reads any more: what is unread is gone, and a read that waits ends.
  void close() noexcept;
  /// By its mark, from the one side or the other; whoever waits gets more whatever it says. `kept`:
  /// bytes that are not here yet, and count where something can be read instead.
  [[nodiscard]] bool wants_input(bool paused, std::size_t kept = 0) const noexcept {
    const std::size_t counted = unread_ > 0 ? unread_ + kept : 0;
    return reader_waits() || counted < (paused ? (std::size_t{high_} + 1) / 2 : high_);
  }
  [[nodiscard]] bool full() const noexcept { return unread_ >= high_; }
  [[nodiscard]] std::size_t high() const noexcept { return high_; }
  /// Whether bytes come by themselves: nobody has to be asked for more.
  void set_flowing(bool flowing) noexcept { flowing_ = flowing && end_ == End::none; }

  /// How often this was asked since anything was read.
  [[nodiscard]] unsigned idle_rounds() noexcept { return idle_rounds_++; }

 private:
  enum class End : std::uint8_t { none, clean, broken, closed };

  void consumed(std::size_t count) noexcept {
    idle_rounds_ = 0;
    unread_ -= count;
    if (!flowing_) [[unlikely]]
      source_.input_wanted();
  }
  Chunk take_first() noexcept;
  void wait_slowly(Reader& reader);
  void wake_reader() noexcept;
  [[nodiscard]] bool reader_waits() const noexcept {
    return reader_ != nullptr && !reader_->waiter.linked();
  }

  Source& source_;
  [[no_unique_address]] SegmentQueue segments_;  // what follows lies in its padding
  End end_ = End::none;
  bool flowing_ = false;
  std::uint8_t idle_rounds_ = 0;
  bool reader_is_patient_ = false;
  std::size_t unread_ = 0;
  Reader* reader_ = nullptr;
  std::uint32_t high_;
  Failure failure_ = 0;  // not told yet
};

}  // namespace weir::detail
