#pragma once

#include <weir/core/buffer.h>
#include <weir/coro/list.h>
#include <weir/coro/scheduler.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace weir {

struct LoopOptions;
struct Metrics;
class Operation;

/// The closed set of what an engine can be asked to do. A new kind does not compile before every
/// engine has learnt it.
enum class OperationKind : std::uint8_t {
  accept,        // many results: connected descriptors
  receive,       // many results: bytes in leased buffers
  receive_into,  // one result: bytes in `data`
  send,          // one result: bytes taken from `slices`, in order
  poll,          // one result: the events of `events` that hold (poll(2) bits)
  read_file,     // one result: bytes read into `data` from `offset`
};

/// A piece of memory to send; laid out like `struct iovec`.
struct Slice {
  const void* data;
  std::size_t size;
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
class Operation : public Link {
 public:
  /// Takes in one result. It may wake waiters and submit or cancel operations; it resumes nobody.
  using Handler = void (*)(Operation&, Completion) noexcept;

  Operation(OperationKind what, void* whose, Handler handler) noexcept
      : on_complete(handler), owner(whose), kind(what) {}

  [[nodiscard]] bool in_flight() const noexcept { return state != State::idle; }
  /// Not with the kernel yet: the owner may change what it refers to.
  [[nodiscard]] bool may_change() const noexcept {
    return state == State::idle || state == State::waiting;
  }

  Handler on_complete;
  void* owner;
  union {
    std::byte* data;
    const Slice* slices;
    std::uint32_t events;
  };
  std::uint64_t offset = 0;  // read_file
  std::uint32_t size = 0;    // bytes of `data`, or number of `slices`
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
  bool cancel_wanted = false;
  std::uint16_t generation = 0;
};

/// An address as the kernel takes it (`struct sockaddr` and its length), opaque at this layer.
struct RawAddress {
  alignas(8) unsigned char bytes[112] = {};
  std::uint32_t size = 0;
};

/// The socket calls that never block. Each gives what the system call gives, with -errno for an
/// error. Loop's thread only.
class Sockets {
 public:
  enum class Option : std::uint8_t {
    no_delay,
    keep_alive,  // with sane times: idle 60 s, interval 10 s, 6 probes
    reuse_address,
    reuse_port,
    v6_only,
    user_timeout_ms,  // TCP_USER_TIMEOUT
    reset_on_close,   // SO_LINGER {1, 0}
    receive_buffer,
    send_buffer,
  };

  virtual int open(int family) = 0;  // a non-blocking, close-on-exec stream socket
  virtual int bind(int fd, const RawAddress& address) = 0;
  virtual int listen(int fd, int backlog) = 0;
  virtual int connect(int fd, const RawAddress& address) = 0;  // -EINPROGRESS: await writability
  virtual int accept(int listener) = 0;                        // -EAGAIN where nobody waits
  virtual int set(int fd, Option option, int value) = 0;
  virtual int take_error(int fd) = 0;  // SO_ERROR, which reading clears: 0 or a positive errno
  virtual int local_address(int fd, RawAddress& address) = 0;
  virtual int peer_address(int fd, RawAddress& address) = 0;
  virtual int shutdown_send(int fd) = 0;
  virtual void stop_listening(int fd) noexcept = 0;  // for all who have the socket
  virtual int unread_bytes(int fd) = 0;              // FIONREAD
  virtual void close(int fd) noexcept = 0;

  virtual int open_spare() = 0;  // a descriptor that holds a place and does nothing else

  /// A descriptor that is readable once one of the signals has come; they are blocked on this
  /// thread until it is closed.
  virtual int open_signals(std::span<const int> signals) = 0;
  virtual int take_signal(int fd) = 0;  // the signal that came, or -EAGAIN
  virtual void close_signals(int fd) noexcept = 0;
  virtual void raise_signal(int number) noexcept = 0;  // as if it came just now

 protected:
  ~Sockets() = default;
};

class EventLoop;

/// The machine that a loop runs on, where that is not the one this process runs on.
class Machine {
 public:
  /// A further loop, which runs until `end_loop`. In place of a thread of its own.
  virtual EventLoop& start_loop(const LoopOptions& options) = 0;
  /// Ends and destroys it. Not from the loop itself.
  virtual void end_loop(EventLoop& loop) noexcept = 0;
  /// The addresses, port 0, that a host name stands for: none if it is not known.
  virtual std::vector<RawAddress> look_up(std::string_view host) = 0;

 protected:
  ~Machine() = default;
};

/// The loop's one door to the world: time, randomness, descriptors and I/O. It speaks completion
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

  [[nodiscard]] virtual TimePoint now() noexcept = 0;
  [[nodiscard]] virtual std::uint64_t random() noexcept = 0;
  [[nodiscard]] virtual Sockets& sockets() noexcept = 0;
  /// nullptr: this process's own. Threads and names come from there too.
  [[nodiscard]] virtual Machine* machine() noexcept { return nullptr; }

  /// Whether no operation is in flight; an engine may be destroyed only then.
  [[nodiscard]] virtual bool idle() const noexcept = 0;

  /// Adds the engine's own counters.
  virtual void add_metrics(Metrics& metrics) const noexcept = 0;
};

/// Makes the engine that the options, `WEIR_ENGINE` and this machine call for. Throws
/// `std::system_error` naming cause and cure, or `std::invalid_argument` naming the option.
/// Defined by the io layer.
std::unique_ptr<IoEngine> make_engine(const LoopOptions& options);

}  // namespace weir
