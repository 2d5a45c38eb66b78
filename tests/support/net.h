#pragma once

#include <weir/weir.h>

#include <doctest/doctest.h>
#include <sys/socket.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>

#include "machine.h"

/// What the tests of the net layer share: bodies that run on every engine, peers that are plain
/// blocking sockets, bytes that can be checked, threads that a coroutine can await.
namespace weir::test {

using namespace std::chrono_literals;

#if defined(__SANITIZE_THREAD__)
#define WEIR_TEST_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define WEIR_TEST_THREAD_SANITIZER 1
#endif
#endif
#ifdef WEIR_TEST_THREAD_SANITIZER
inline constexpr bool kThreadSanitizer = true;
#else
inline constexpr bool kThreadSanitizer = false;
#endif
#ifdef WEIR_SANITIZED
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

/// No test waits longer than this for anything: only what hangs does, on the busiest machine.
inline constexpr auto kPatience = 120s;

// ---------------------------------------------------------------------------------------------
// Engines

std::string name_of(Engine engine);

/// Calls the body with each engine that this machine has; prints why the others are skipped. For
/// cases that make loops or servers in threads of their own, or measure the real clock: those
/// cannot run on the simulation, which has one thread, its world's, and no loops but its own.
void for_each_engine(const std::function<void(Engine)>& body);

/// The same for what the simulation does not model, for a reason that is printed.
void for_each_kernel_engine(std::string_view reason, const std::function<void(Engine)>& body);

/// Runs the coroutine `body` on a fresh loop of each engine, and on the simulation: the conformance
/// suite. It fails if it takes longer than `kPatience`.
void on_each_engine(const std::function<Task<>()>& body, LoopOptions options = {});

/// The same without the simulation, for a reason that is printed.
void on_each_kernel_engine(std::string_view reason, const std::function<Task<>()>& body,
                           LoopOptions options = {});

/// The same on one given engine.
void on_engine(Engine engine, const std::function<Task<>()>& body, LoopOptions options = {});

/// The time of the machine that the current loop runs on, virtual on the simulation.
inline TimePoint time_now() { return EventLoop::current().machine().now(); }

// ---------------------------------------------------------------------------------------------
// TLS

/// What a peer's bytes go through on their way to its socket and from it. The calls give what those
/// of the machine give.
class PeerLayer {
 public:
  PeerLayer() = default;
  PeerLayer(const PeerLayer&) = delete;
  PeerLayer& operator=(const PeerLayer&) = delete;
  virtual ~PeerLayer() = default;

  virtual std::int64_t send(std::string_view bytes, bool waits) = 0;
  virtual std::int64_t receive(std::span<char> into, bool waits) = 0;
  /// 0 once the handshake is done.
  virtual std::int64_t agree(bool waits) = 0;
  /// Before the FIN.
  virtual std::int64_t say_end(bool waits) = 0;
};

/// The cases of the net layer run a second time with their connections under TLS, if WEIR_TEST_TLS
/// is set (tests/CMakeLists.txt says which): those of `connect_pair` and `link_pair`, which have
/// agreed from the beginning, and those to a server of `server_options`.
class TlsMode {
 public:
  TlsMode() = default;
  TlsMode(const TlsMode&) = delete;
  TlsMode& operator=(const TlsMode&) = delete;
  virtual ~TlsMode() = default;

  /// nullptr: this is the first time.
  static TlsMode*& current() noexcept;

  [[nodiscard]] virtual const TlsContext& server() const = 0;
  /// Ours is a server's side; gives what the other end, a client's, is to be behind.
  virtual std::unique_ptr<PeerLayer> secure(TcpConnection& ours, TestMachine& machine,
                                            int other) = 0;
  virtual void secure(TcpConnection& client, TcpConnection& server) = 0;
  /// A client that begins, and agrees when it is used first, or in `turns`.
  virtual std::unique_ptr<PeerLayer> begin(TestMachine& machine, int fd) = 0;
  /// Takes those on that have begun, as far as they come without waiting.
  virtual void go_on() = 0;
};

/// Whether this is the second time, in which the calling case has no meaning; the reason is
/// printed.
bool plain_only(std::string_view reason);

// ---------------------------------------------------------------------------------------------
// Peers

/// A plain blocking socket, apart from weir, whose calls give up after `kPatience`: of the kernel,
/// or of the simulated one where the body runs on the simulation. Errors come as
/// `std::system_error`, but where the comment says otherwise.
class Peer {
 public:
  Peer() noexcept = default;
  /// Of the machine that the caller is on.
  explicit Peer(int fd) : machine_(&TestMachine::current()), fd_(fd) {}
  Peer(TestMachine& machine, int fd, std::unique_ptr<PeerLayer> layer)
      : machine_(&machine), fd_(fd), layer_(std::move(layer)) {}
  Peer(Peer&& other) noexcept
      : machine_(other.machine_),
        fd_(std::exchange(other.fd_, -1)),
        layer_(std::move(other.layer_)) {}
  Peer& operator=(Peer&& other) noexcept {
    std::swap(machine_, other.machine_);
    std::swap(fd_, other.fd_);
    std::swap(layer_, other.layer_);
    return *this;
  }
  ~Peer() { close(); }

  /// Connects; with `buffer_bytes`, small buffers in both directions.
  static Peer connect(const SocketAddress& address, int buffer_bytes = 0);
  /// To a server of `server_options`.
  static Peer connect_to(const TcpServer& server, int buffer_bytes = 0);
  /// How a connection ends where nobody may listen any more: ECONNREFUSED, or what `wait_for_end`
  /// gives. It says something: of a client that came in the very moment of the listener's close the
  /// kernel may know nothing and have told it nothing, until it does.
  static int knock(const SocketAddress& address);

  void send(std::string_view bytes);
  /// Sends as much as goes without waiting.
  std::size_t send_now(std::string_view bytes);
  /// Waits until the handshake with a server is done, if there is one.
  void agree();
  /// Some bytes; empty at the end of the stream.
  std::string receive(std::size_t most = 65536);
  /// What is there already, without waiting.
  std::string receive_now(std::size_t most = 65536);
  /// Whether the end of the stream is there already, with nothing before it.
  bool has_ended();
  std::string receive_exactly(std::size_t count);
  /// All up to the end of the stream. An error that ends it goes to `error`, else it is 0.
  std::string receive_all(int* error = nullptr);
  /// 0 at the FIN, ECONNRESET at an RST …; bytes before it are thrown away.
  int wait_for_end();

  void shutdown_send();
  /// Closes with RST.
  void reset();
  void close() noexcept;

  [[nodiscard]] int fd() const noexcept { return fd_; }
  /// The descriptor is the caller's from now on.
  [[nodiscard]] int release() noexcept {
    layer_.reset();
    return std::exchange(fd_, -1);
  }
  [[nodiscard]] SocketAddress local_address() const;
  explicit operator bool() const noexcept { return fd_ >= 0; }

 private:
  std::int64_t send_some(std::string_view bytes, bool waits);
  std::int64_t receive_some(std::span<char> into, bool waits);

  TestMachine* machine_ = nullptr;
  int fd_ = -1;
  std::unique_ptr<PeerLayer> layer_;  // nullptr: none
};

/// `Peer::connect_to`, which has agreed with the server.
Task<Peer> agreed_peer(const TcpServer& server, int buffer_bytes = 0);

/// A connection between weir, on the current loop, and a plain socket.
struct Connected {
  TcpConnection connection;
  Peer peer;
};
Connected connect_pair(ConnectionOptions options = {}, int buffer_bytes = 0);

/// A connection with weir at both ends, on the current loop.
struct Linked {
  TcpConnection a;
  TcpConnection b;
};
Linked link_pair(ConnectionOptions a = {}, ConnectionOptions b = {}, int buffer_bytes = 0);

/// The same two sockets, bare: connected over loopback.
std::pair<int, int> tcp_pair(int buffer_bytes = 0);

/// An option of a socket as the real kernel has it.
int option_of(int fd, int level, int name);

/// Descriptors of this process; those of other threads and cases stand still: a case's own count.
inline std::size_t count_descriptors() { return TestMachine::current().open_descriptors(); }

/// Lowers the limit of descriptors to those open now, until the end of its life.
class NoDescriptorsLeft {
 public:
  NoDescriptorsLeft() : machine_(TestMachine::current()) { machine_.deny_descriptors(true); }
  NoDescriptorsLeft(const NoDescriptorsLeft&) = delete;
  NoDescriptorsLeft& operator=(const NoDescriptorsLeft&) = delete;
  ~NoDescriptorsLeft() { machine_.deny_descriptors(false); }

 private:
  TestMachine& machine_;
};

SocketAddress loopback();

/// Of a loopback address that no other process listens on or connects from: a port of it that was
/// given back is free until this process takes it again, while any other's may be somebody's by
/// then.
SocketAddress own_loopback();

/// The threads of this process but those of the log and of `blocking`, which stay, and the
/// kernel's. One that was joined may be there for a moment longer: right only where none has just
/// ended.
std::size_t count_threads();

/// Look-ups go on in threads of their own, which may have files open, and count their frames at
/// their end. Waits, at the end of its life, until those that came since are gone.
class LookupsEnd {
 public:
  LookupsEnd();
  LookupsEnd(const LookupsEnd&) = delete;
  LookupsEnd& operator=(const LookupsEnd&) = delete;
  ~LookupsEnd();

 private:
  std::set<std::string> before_;  // which, not how many: one that was joined may be among them
};

// ---------------------------------------------------------------------------------------------
// Bytes

/// A stream of bytes that are different at every place; `seed` tells streams apart.
std::string pattern(std::size_t size, std::uint64_t seed = 1, std::uint64_t offset = 0);

/// How many of `bytes` are right, from `offset` of the stream on; all, if it equals their number.
std::size_t matching(std::string_view bytes, std::uint64_t seed, std::uint64_t offset);

// ---------------------------------------------------------------------------------------------
// Threads, messages, errors

/// A thread of a test's own, which may call what blocks of `Peer`, and not throw. Its end is
/// awaited by the destructor.
class Thread {
 public:
  explicit Thread(std::function<void()> function)
      : running_(TestMachine::current().start_thread(std::move(function))) {}

 private:
  std::unique_ptr<TestMachine::Running> running_;
};

/// In such a thread: for those who ask again and again.
inline void yield_thread() { TestMachine::current().yield(); }

namespace detail {
template <class T>
struct ThreadResult {
  Event done;
  std::optional<T> value;
  std::exception_ptr failure;
};
}  // namespace detail

/// `co_await in_thread(function)` calls a function that may block in a thread of its own, and gives
/// what it returned or throws what it threw. Dropping it waits for the function.
template <class Function>
Task<std::invoke_result_t<Function&>> in_thread(Function function) {
  using T = std::invoke_result_t<Function&>;
  constexpr bool kVoid = std::is_void_v<T>;
  using State = detail::ThreadResult<std::conditional_t<kVoid, std::monostate, T>>;
  auto state = std::make_shared<State>();
  EventLoop& loop = EventLoop::current();
  const Thread thread([&function, &loop, state] {
    try {
      if constexpr (kVoid) {
        function();
        state->value.emplace();
      } else {
        state->value.emplace(function());
      }
    } catch (...) {
      state->failure = std::current_exception();
    }
    loop.post([state] { state->done.set(); });
  });
  co_await state->done.wait();
  if (state->failure != nullptr) std::rethrow_exception(state->failure);
  if constexpr (!kVoid) co_return std::move(*state->value);
}

/// The error that a function throws, as text; empty if it throws none.
template <class Error, class Function>
std::string text_of(Function&& function) {
  try {
    std::forward<Function>(function)();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

/// Lets the loop turn a number of times. What was on its way over loopback before a turn has
/// arrived behind it.
Task<> turns(int count);

/// Lets the loop turn until `condition` holds. It asks again in each turn: for states of the
/// kernel that nothing tells of.
template <class Condition>
Task<> turn_until(Condition condition) {
  const TimePoint end = time_now() + kPatience;
  while (!condition()) {
    if (time_now() > end) throw std::runtime_error("turn_until: in vain");
    co_await turns(1);
  }
}

/// Results that the current loop's engine has delivered so far.
inline std::uint64_t completions() { return EventLoop::current().metrics().completed; }

/// Lets the loop turn until it has delivered `count` more results than `since`.
Task<> completed(std::uint64_t since, std::uint64_t count = 1);

/// Calls the function in the turn in which `count` results more than `since` have been delivered:
/// what they woke has not run yet.
void before_resuming(std::uint64_t since, std::uint64_t count, std::function<void()> function);

}  // namespace weir::test

template <>
struct doctest::StringMaker<weir::SocketAddress> {
  static String convert(const weir::SocketAddress& address) { return address.to_string().c_str(); }
};

template <>
struct doctest::StringMaker<std::error_code> {
  static String convert(const std::error_code& error) { return error.message().c_str(); }
};
