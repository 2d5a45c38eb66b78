#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <span>

namespace weir::detail {

/// What came last on a loop: 4096 events of 16 bytes. One thread writes; any may read, also of a
/// loop that is stuck, and a debugger of a process that is no more. What an event names may have
/// gone: it is compared, and shown, and not followed.
class FlightRecorder {
 public:
  enum class Kind : std::uint8_t {
    none,
    resumed,  // a coroutine of the task `more`: where it had waited, as its Place has it
    began,    // a task
    ended,    // likewise
    opened,   // a connection: its id
    broke,    // likewise; why, as errno has it
    closed,   // likewise
    stalled,  // the loop, for so many milliseconds
  };
  struct Event {
    Kind kind = Kind::none;
    std::uint32_t clock_ms = 0;  // of the loop's turn
    std::uint32_t more = 0;      // 24 bits
    std::uint64_t what = 0;
  };

  static constexpr std::size_t kEvents = 4096;

  /// With its loop's clock, which is looked at. Throws `std::bad_alloc`.
  explicit FlightRecorder(const std::atomic<std::uint32_t>& clock_ms)
      : clock_ms_(clock_ms), words_(static_cast<std::uint64_t*>(std::calloc(2 * kEvents, kWord))) {
    if (words_ == nullptr) throw std::bad_alloc();
  }

  void note(Kind kind, std::uint64_t what, std::uint32_t more = 0) noexcept {
    note_head(head(kind, clock_ms_.load(std::memory_order_relaxed), more), what);
  }
  /// Of what is the same for many.
  [[nodiscard]] static constexpr std::uint64_t head(Kind kind, std::uint32_t clock_ms = 0,
                                                    std::uint32_t more = 0) noexcept {
    return static_cast<std::uint64_t>(kind) | std::uint64_t{more & 0xffffffU} << 8 |
           std::uint64_t{clock_ms} << 32;
  }
  /// A number of a task, which no other has while it is there, nearly always: 24 bits of its
  /// scope's address.
  [[nodiscard]] static std::uint32_t number_of(const void* scope) noexcept {
    return static_cast<std::uint32_t>(std::bit_cast<std::uintptr_t>(scope) >> 4U) & 0xffffffU;
  }
  [[gnu::always_inline]] void note_head(std::uint64_t head, std::uint64_t what) noexcept {
    const std::uint64_t end = end_.load(std::memory_order_relaxed);
    std::uint64_t* const event = &words_[2 * (end % kEvents)];
    // In this order for whoever reads.
    std::atomic_ref(event[0]).store(head, std::memory_order_release);
    std::atomic_ref(event[1]).store(what, std::memory_order_release);
    end_.store(end + 1, std::memory_order_release);
  }

  /// Puts the last ones there, the oldest first; gives how many. From any thread: those that are
  /// overwritten meanwhile are left out.
  std::size_t take_last(std::span<Event> into) const noexcept;

 private:
  static constexpr std::size_t kWord = sizeof(std::uint64_t);
  struct Free {
    void operator()(std::uint64_t* words) const noexcept { std::free(words); }
  };

  const std::atomic<std::uint32_t>& clock_ms_;
  std::atomic<std::uint64_t> end_{0};  // how many there have been
  // Two for each event; as they are given, the kernel has no page of them before it is written to.
  std::unique_ptr<std::uint64_t[], Free> words_;
};

}  // namespace weir::detail
