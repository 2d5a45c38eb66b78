#pragma once

#include <weir/core/buffer.h>
#include <weir/coro/list.h>
#include <weir/coro/scheduler.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace weir {
struct Metrics;
}

namespace weir::detail {

class Operation;

/// The closed set of what an engine can be asked to do. A new kind does not compile before every
/// engine has learnt it.
enum class OperationKind : std::uint8_t {
  accept,        // many results: connected descriptors
  receive,       // many results: bytes in leased buffers
  receive_into,  // one result: bytes in `into`
  send,          // one result: bytes taken from `gather`, in order
  send_now,      // the same of what goes without waiting, of one slice; or -EAGAIN
  poll,          // one result: those of `events` that hold; with `kChanges` more may come
  read_file,     // one result: bytes read as `file` says
};

/// One result of an operation. Small enough to travel in registers.
struct Completion {
  std::int32_t result;  // as the system call gives it: a count or descriptor, or -errno
  std::uint32_t more;   // further results will come; 0: the operation is the owner's again
  Buffer* buffer;       // receive: where the `result` bytes lie, unreferenced so far; else nullptr
};

/// One request to the kernel, as plain data. It belongs to the engine from `submit` to the
/// completion without `more`; whoever owns it keeps it, and all that it points to, in place until
/// then, whatever becomes of the coroutine that wanted it.
class Operation {
 public:
  /// Takes in one result. It may wake waiters and submit or cancel operations; it resumes nobody.
  using Handler = void (*)(Operation&, Completion) noexcept;

  Operation(OperationKind what, Handler handler) noexcept : on_complete(handler), kind(what) {}

  [[nodiscard]] bool in_flight() const noexcept { return state != State::idle; }
  /// Not with the kernel yet: the owner may change what it refers to.
  [[nodiscard]] bool may_change() const noexcept {
    return state == State::idle || state == State::waiting;
  }

  // Packed, so that what follows the union lies close.
  struct [[gnu::packed, gnu::aligned(4)]] Into {
    std::byte* data;
    std::uint32_t size;
  };
  struct [[gnu::packed, gnu::aligned(4)]] Gather {
    const Slice* slices;
    std::uint32_t count;
  };
  struct FilePart {
    std::byte* data;
    std::uint64_t offset;
    std::uint32_t size;
  };

  // What it asks for next, of the same descriptor. While it `may_change`.
  void accept() noexcept { kind = OperationKind::accept; }
  void receive() noexcept { kind = OperationKind::receive; }
  void receive_into(std::byte* data, std::uint32_t size) noexcept {
    kind = OperationKind::receive_into;
    into = {data, size};
  }
  void send(const Slice* slices, std::uint32_t count) noexcept {
    kind = OperationKind::send;
    gather = {slices, count};
  }
  void send_now(const Slice& slice) noexcept {
    kind = OperationKind::send_now;
    gather = {&slice, 1};
  }
  void poll(std::uint32_t wanted) noexcept {  // poll(2) bits
    kind = OperationKind::poll;
    events = wanted;
  }
  /// The same, where others than those may hold all the time: a result says that something may have
  /// changed, and more may come.
  void poll_changes(std::uint32_t wanted) noexcept { poll(wanted | kChanges); }
  static constexpr std::uint32_t kChanges = std::uint32_t{1} << 31;
  void read_file(const FilePart& part) noexcept {
    kind = OperationKind::read_file;
    file = &part;
  }

  Link link;  // whoever has it: the engine's lists
  Handler on_complete;
  union [[gnu::packed, gnu::aligned(4)]] {
    Into into{nullptr, 0};  // receive_into
    Gather gather;          // send, send_now
    std::uint32_t events;   // poll
    const FilePart* file;   // read_file
  };
  int fd = -1;
  OperationKind kind;

  // The rest is the engine's.
  enum class State : std::uint8_t {
    idle,       // the owner's
    waiting,    // submitted, and not yet with the kernel
    submitted,  // with the kernel
    starved,    // a receive that waits for a buffer
    ended,      // its last completion is ready to be delivered
  };
  State state = State::idle;
  bool cancel_wanted : 1 = false;
  /// Of a receive, the owner's: it has one result. A Unix socket on io_uring may else not be told
  /// of its end (Linux 6.18: after 32 results in a row the kernel looks again only when more
  /// comes).
  bool one_result : 1 = false;
  std::uint8_t generation = 0;
};
static_assert(sizeof(Operation) <= 48);  // two for each connection

/// How operations are done; what a loop has apart from it is its machine's. It speaks completion
/// only. All of it on the loop's thread, `wake` alone from any.
class IoEngine {
 public:
  IoEngine() = default;
  IoEngine(const IoEngine&) = delete;
  IoEngine& operator=(const IoEngine&) = delete;
  virtual ~IoEngine() = default;

  [[nodiscard]] virtual std::string_view name() const noexcept = 0;

  /// Called by the thread that is going to run the loop, before anything else. Throws
  /// `std::system_error`, or `std::logic_error` if another thread ran it before and this engine
  /// cannot move.
  virtual void attach() = 0;
  /// The thread no longer runs the loop, until it attaches again: nothing of the engine hangs on
  /// its life.
  virtual void detach() noexcept {}

  /// The thread that ran the loop is not to be had any more: ends all that is in flight, without
  /// it. What is submitted from now on is cancelled.
  virtual void abandon() noexcept = 0;

  /// Starts an operation that is not in flight. It cannot fail: errors come as completions. Nothing
  /// of it happens before the next `wait`: until then its owner may still change what it refers
  /// to, so that what is queued in one turn of the loop leaves as one.
  virtual void submit(Operation& operation) noexcept = 0;

  /// Asks for an operation in flight to end soon. It still completes in its own way, with a
  /// result or -ECANCELED. Never dropped, whatever the state of the queues.
  virtual void cancel(Operation& operation) noexcept = 0;

  /// Hands over what was submitted, waits until something completes, `deadline` passes or `wake`
  /// is called, and delivers completions. A deadline that has passed only looks.
  virtual void wait(TimePoint deadline) = 0;

  /// Ends a `wait` that is under way, or else the next one. From any thread.
  virtual void wake() noexcept = 0;

  /// For a host that polls instead of waiting: a descriptor, always the same, that is readable when
  /// a `wait` would find something, and once the deadline has passed; `TimePoint::min()` before a
  /// `wait` of the host's. Negative: there is none, for that reason.
  virtual int poll_fd(TimePoint /*deadline*/) { return -EOPNOTSUPP; }

  /// Whether no operation is in flight; an engine may be destroyed only then.
  [[nodiscard]] virtual bool idle() const noexcept = 0;

  /// Adds the engine's own counters.
  virtual void add_metrics(Metrics& metrics) const noexcept = 0;

  /// Calls the function with each receive buffer that is out.
  virtual void for_each_lease(void* /*context*/, void (* /*visit*/)(void*, const Buffer&)) const {}
};

}  // namespace weir::detail
