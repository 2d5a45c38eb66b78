#include "self_tests.h"

#include <linux/io_uring.h>
#include <linux/time_types.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <exception>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <utility>

// By system calls alone, apart from the engine: what is wrong in the one is not hidden by the
// other, and the headers of any kernel will do.

namespace doctor {
namespace {

// Newer than some headers; values of the kernel's interface.
constexpr unsigned kSingleIssuer = 1U << 12;
constexpr unsigned kDeferTaskRun = 1U << 13;
constexpr unsigned kRegisterEnableRings = 12;
constexpr unsigned kRegisterFiles2 = 13;
constexpr unsigned kRegisterBufferRing = 22;
constexpr unsigned kSparse = 1U << 0;
constexpr std::uint16_t kIncremental = 2;
constexpr unsigned kBufferMore = 1U << 4;
constexpr std::uint16_t kMultishotAccept = 1U << 0;
constexpr std::uint16_t kMultishotReceive = 1U << 1;
constexpr std::uint16_t kBundle = 1U << 4;
constexpr std::uint8_t kOpMessage = 40;
constexpr std::uint8_t kOpSendZeroCopy = 47;
constexpr unsigned kNotification = 1U << 3;
constexpr unsigned kNoIowait = 1U << 17;
constexpr std::uint32_t kAnySlot = ~std::uint32_t{0};

[[noreturn]] void fail(const char* what, int error = errno) {
  throw std::system_error(error, std::generic_category(), what);
}

void expect(bool holds, const char* otherwise) {
  if (!holds) throw std::runtime_error(otherwise);
}

class Descriptor {
 public:
  explicit Descriptor(int fd, const char* what = "open") : fd_(fd) {
    if (fd < 0) fail(what);
  }
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  [[nodiscard]] int get() const noexcept { return fd_; }

 private:
  int fd_;
};

class Mapping {
 public:
  Mapping(std::size_t size, int fd, std::int64_t offset) : size_(size) {
    const int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED | MAP_POPULATE;
    data_ = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, flags, fd, offset);
    if (data_ == MAP_FAILED) fail("mmap");
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() { ::munmap(data_, size_); }

  template <class T>
  [[nodiscard]] T* at(std::size_t offset) const noexcept {
    return reinterpret_cast<T*>(static_cast<std::byte*>(data_) + offset);
  }

 private:
  void* data_;
  std::size_t size_;
};

/// The least that makes an io_uring work.
class Ring {
 public:
  explicit Ring(unsigned flags = 0)
      : fd_(set_up(parameters_, flags), "io_uring_setup"),
        queues_(std::max(parameters_.sq_off.array + parameters_.sq_entries * sizeof(unsigned),
                         parameters_.cq_off.cqes + parameters_.cq_entries * sizeof(io_uring_cqe)),
                fd_.get(), IORING_OFF_SQ_RING),
        entries_(parameters_.sq_entries * sizeof(io_uring_sqe), fd_.get(), IORING_OFF_SQES) {
    expect((parameters_.features & IORING_FEAT_SINGLE_MMAP) != 0, "the kernel is older than 5.4");
    expect((parameters_.features & IORING_FEAT_EXT_ARG) != 0, "the kernel is older than 5.11");
    for (unsigned i = 0; i < parameters_.sq_entries; ++i) {
      queues_.at<unsigned>(parameters_.sq_off.array)[i] = i;
    }
  }

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  [[nodiscard]] unsigned features() const noexcept { return parameters_.features; }

  int enlist(unsigned what, const void* argument, unsigned count) const {
    return static_cast<int>(::syscall(__NR_io_uring_register, fd(), what, argument, count));
  }

  io_uring_sqe& add(std::uint8_t operation, int fd, std::uint64_t tag) {
    io_uring_sqe& entry = entries_.at<io_uring_sqe>(0)[tail_++ & (parameters_.sq_entries - 1)];
    entry = {};
    entry.opcode = operation;
    entry.fd = fd;
    entry.user_data = tag;
    ++pending_;
    return entry;
  }

  /// Submits what was added and takes the next result. Throws if none comes within a second.
  io_uring_cqe next() {
    for (int i = 0; i < 10; ++i) {
      enter();
      if (const io_uring_cqe* found = peek()) {
        const io_uring_cqe result = *found;
        head().store(head_ + 1, std::memory_order_release);
        return result;
      }
    }
    throw std::runtime_error("no completion came");
  }

  /// The next result, which has to be good.
  io_uring_cqe good(const char* what) {
    const io_uring_cqe result = next();
    if (result.res < 0) fail(what, -result.res);
    return result;
  }

 private:
  static int set_up(io_uring_params& parameters, unsigned flags) {
    parameters.flags = flags;
    return static_cast<int>(::syscall(__NR_io_uring_setup, 16, &parameters));
  }

  std::atomic_ref<unsigned> head() const {
    return std::atomic_ref(*queues_.at<unsigned>(parameters_.cq_off.head));
  }

  const io_uring_cqe* peek() {
    head_ = head().load();
    const std::atomic_ref tail(*queues_.at<unsigned>(parameters_.cq_off.tail));
    if (tail.load(std::memory_order_acquire) == head_) return nullptr;
    return queues_.at<io_uring_cqe>(parameters_.cq_off.cqes) +
           (head_ & (parameters_.cq_entries - 1));
  }

  void enter() {
    const std::atomic_ref tail(*queues_.at<unsigned>(parameters_.sq_off.tail));
    tail.store(tail_, std::memory_order_release);
    __kernel_timespec timeout{.tv_sec = 0, .tv_nsec = 100'000'000};
    io_uring_getevents_arg argument{};
    argument.sigmask_sz = _NSIG / 8;
    argument.ts = reinterpret_cast<std::uintptr_t>(&timeout);
    const unsigned wanted = peek() == nullptr ? 1 : 0;
    const auto result =
        ::syscall(__NR_io_uring_enter, fd(), std::exchange(pending_, 0), wanted,
                  IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, &argument, sizeof argument);
    if (result < 0 && errno != ETIME && errno != EINTR) fail("io_uring_enter");
  }

  io_uring_params parameters_{};
  Descriptor fd_;
  Mapping queues_;
  Mapping entries_;
  unsigned tail_ = 0;
  unsigned head_ = 0;
  unsigned pending_ = 0;
};

/// Buffers that the kernel chooses from. To be made before the ring, so that it goes after it.
class Buffers {
 public:
  static constexpr unsigned kCount = 4;

  explicit Buffers(std::uint32_t size)
      : size_(size), ring_(4096, -1, 0), data_(std::size_t{kCount} * size, '\0') {}

  void offer(Ring& ring, std::uint16_t flags = 0) {
    io_uring_buf_reg registration{};
    registration.ring_addr = reinterpret_cast<std::uintptr_t>(ring_.at<io_uring_buf>(0));
    registration.ring_entries = kCount;
    // `flags` in newer headers, `pad` in older ones.
    std::memcpy(reinterpret_cast<std::byte*>(&registration) + 14, &flags, sizeof flags);
    if (ring.enlist(kRegisterBufferRing, &registration, 1) < 0) fail("registering buffers");
    for (std::uint16_t id = 0; id < kCount; ++id) {
      io_uring_buf& buffer = ring_.at<io_uring_buf>(0)[id];
      buffer.addr = reinterpret_cast<std::uintptr_t>(at(id));
      buffer.len = size_;
      buffer.bid = id;
    }
    // The tail overlays the first buffer's reserved field.
    const std::atomic_ref tail(*ring_.at<std::uint16_t>(offsetof(io_uring_buf, resv)));
    tail.store(kCount, std::memory_order_release);
  }

  [[nodiscard]] char* at(unsigned id) noexcept { return data_.data() + std::size_t{id} * size_; }
  [[nodiscard]] std::string_view all() const noexcept { return data_; }

 private:
  std::uint32_t size_;
  Mapping ring_;
  std::string data_;
};

struct Listener {
  Listener() : fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), "socket") {
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), size) != 0) fail("bind");
    if (::listen(fd.get(), 8) != 0) fail("listen");
    ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size);
  }

  Descriptor connect() const {
    Descriptor client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
    const auto* where = reinterpret_cast<const sockaddr*>(&address);
    if (::connect(client.get(), where, sizeof address) != 0) fail("connect");
    return client;
  }

  Descriptor fd;
  sockaddr_in address{};
};

/// A TCP connection over loopback.
struct Pair {
  Listener listener;
  Descriptor client = listener.connect();
  Descriptor server{::accept4(listener.fd.get(), nullptr, nullptr, SOCK_CLOEXEC), "accept"};

  void send(std::string_view bytes) const {
    if (::send(client.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(bytes.size())) {
      fail("send");
    }
  }
};

unsigned buffer_of(const io_uring_cqe& result) {
  expect((result.flags & IORING_CQE_F_BUFFER) != 0, "no buffer was chosen");
  return result.flags >> IORING_CQE_BUFFER_SHIFT;
}

io_uring_sqe& add_receive(Ring& ring, const Pair& pair, std::uint16_t how) {
  io_uring_sqe& entry = ring.add(IORING_OP_RECV, pair.server.get(), 1);
  entry.ioprio = how;
  entry.flags = IOSQE_BUFFER_SELECT;
  return entry;
}

// Each gives a remark, or throws what is wrong.

std::string try_ring() {
  Ring ring;
  ring.add(IORING_OP_NOP, -1, 1);
  ring.good("nop");
  return {};
}

std::string try_deferred_work() {
  Ring ring(kSingleIssuer | kDeferTaskRun | IORING_SETUP_R_DISABLED);
  if (ring.enlist(kRegisterEnableRings, nullptr, 0) < 0) fail("enabling the ring");
  ring.add(IORING_OP_NOP, -1, 1);
  ring.good("nop");
  return {};
}

std::string try_multishot_accept() {
  Ring ring;
  const Listener listener;
  ring.add(IORING_OP_ACCEPT, listener.fd.get(), 1).ioprio = kMultishotAccept;
  for (int i = 0; i < 2; ++i) {
    const Descriptor client = listener.connect();
    const io_uring_cqe result = ring.good("accept");
    const Descriptor accepted(result.res);
    expect((result.flags & IORING_CQE_F_MORE) != 0, "it accepts only once");
  }
  return {};
}

std::string try_multishot_receive() {
  Buffers buffers(64);
  Ring ring;
  const Pair pair;
  buffers.offer(ring);
  add_receive(ring, pair, kMultishotReceive);
  for (const std::string_view text : {"first", "second"}) {
    pair.send(text);
    const io_uring_cqe result = ring.good("receive");
    expect((result.flags & IORING_CQE_F_MORE) != 0, "it receives only once");
    const std::string_view got(buffers.at(buffer_of(result)), static_cast<std::size_t>(result.res));
    expect(got == text, "the bytes are wrong");
  }
  return {};
}

std::string try_bundles() {
  Buffers buffers(64);
  Ring ring;
  const Pair pair;
  buffers.offer(ring);
  std::string text(256, ' ');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>('a' + i % 26);
  pair.send(text);
  add_receive(ring, pair, kBundle);
  const io_uring_cqe result = ring.good("receive");
  expect(result.res == 256, "one receive fills one buffer only");
  expect(buffer_of(result) == 0 && buffers.all() == text, "the bytes are wrong");
  return {};
}

std::string try_incremental_buffers() {
  Buffers buffers(4096);
  Ring ring;
  const Pair pair;
  buffers.offer(ring, kIncremental);
  add_receive(ring, pair, kMultishotReceive);
  std::string sent;
  for (const std::string_view text : {"one", "two", "three"}) {
    pair.send(text);
    sent += text;
    const io_uring_cqe result = ring.good("receive");
    expect(buffer_of(result) == 0 && (result.flags & kBufferMore) != 0,
           "a buffer is given up after one receive");
  }
  expect(std::string_view(buffers.at(0), sent.size()) == sent, "the bytes are wrong");
  return {};
}

std::string try_direct_accept() {
  Ring ring;
  const Listener listener;
  io_uring_rsrc_register slots{};
  slots.nr = 1;
  slots.flags = kSparse;
  if (ring.enlist(kRegisterFiles2, &slots, sizeof slots) < 0) fail("registering slots");
  ring.add(IORING_OP_ACCEPT, listener.fd.get(), 1).file_index = kAnySlot;
  const Descriptor client = listener.connect();
  expect(ring.good("accept").res == 0, "it is not the slot that was free");
  return {};
}

std::string try_ring_messages() {
  Ring from;
  Ring to;
  io_uring_sqe& entry = from.add(kOpMessage, to.fd(), 1);
  entry.len = 42;
  entry.off = 7;
  from.good("message");
  const io_uring_cqe result = to.good("message");
  expect(result.res == 42 && result.user_data == 7, "the message is wrong");
  return {};
}

std::string try_cancel() {
  Ring ring;
  const Pair pair;
  ring.add(IORING_OP_POLL_ADD, pair.server.get(), 1).poll32_events = POLLIN;
  ring.add(IORING_OP_ASYNC_CANCEL, -1, 2).addr = 1;
  for (int i = 0; i < 2; ++i) {
    const io_uring_cqe result = ring.next();
    expect(result.res == (result.user_data == 1 ? -ECANCELED : 0), "it is not cancelled");
  }
  return {};
}

std::string try_zero_copy() {
  Ring ring;
  const Pair pair;
  const char text[] = "zero";
  io_uring_sqe& entry = ring.add(kOpSendZeroCopy, pair.client.get(), 1);
  entry.addr = reinterpret_cast<std::uintptr_t>(text);
  entry.len = sizeof text;
  expect((ring.good("send").flags & IORING_CQE_F_MORE) != 0, "no notification is promised");
  char received[sizeof text];
  if (::recv(pair.server.get(), received, sizeof received, 0) != sizeof text) fail("recv");
  expect((ring.next().flags & kNotification) != 0, "no notification came");
  return {};
}

std::string try_no_iowait() {
  const Ring ring;
  expect((ring.features() & kNoIowait) != 0, "the kernel is older than 6.15");
  return {};
}

std::string try_epoll_pwait2() {
#ifdef SYS_epoll_pwait2
  const Descriptor epoll(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
  epoll_event event{};
  const timespec timeout{.tv_sec = 0, .tv_nsec = 1000};
  if (::syscall(SYS_epoll_pwait2, epoll.get(), &event, 1, &timeout, nullptr, 0) < 0) {
    fail("epoll_pwait2");
  }
  return {};
#else
  throw std::runtime_error("unknown to the headers weir was built with");
#endif
}

}  // namespace

std::vector<Capability> find_capabilities() {
  struct Trial {
    const char* name;
    const char* used_for;
    std::string (*run)();
  };
  constexpr Trial kTrials[] = {
      {"io_uring", "the engine that weir prefers", try_ring},
      {"multishot accept", "io_uring engine: one request accepts all clients",
       try_multishot_accept},
      {"multishot receive", "io_uring engine: an idle connection owns no buffer",
       try_multishot_receive},
      {"cancelling", "io_uring engine: dropping a task takes its operation back", try_cancel},
      {"deferred task work",
       "io_uring engine: the kernel works when the loop asks, not when it "
       "likes",
       try_deferred_work},
      {"no iowait", "io_uring engine: an idle loop does not count as waiting for a disk",
       try_no_iowait},
      {"messages between rings", "not used; loops wake each other by an eventfd",
       try_ring_messages},
      {"accept into a slot", "not used; a spare descriptor sheds clients at the limit",
       try_direct_accept},
      {"receiving in bundles", "not used", try_bundles},
      {"incremental buffers", "not used", try_incremental_buffers},
      {"sending without a copy", "not used", try_zero_copy},
      {"epoll_pwait2", "epoll engine: timers finer than a millisecond", try_epoll_pwait2},
  };
  std::vector<Capability> found;
  for (const Trial& trial : kTrials) {
    Capability& capability = found.emplace_back();
    capability.name = trial.name;
    capability.used_for = trial.used_for;
    try {
      capability.detail = trial.run();
      capability.works = true;
    } catch (const std::exception& error) {
      capability.detail = error.what();
    }
  }
  return found;
}

}  // namespace doctor
