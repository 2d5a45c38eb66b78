#include <weir/core/event_loop.h>
#include <weir/core/logging.h>
#include <weir/core/processor.h>
#include <weir/coro/as_tuple.h>
#include <weir/coro/timeout.h>
#include <weir/io/handover.h>

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <span>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <utility>

namespace weir::detail {
namespace {

constexpr int kFirst = 3;  // SD_LISTEN_FDS_START
constexpr int kMost = 256;
/// In LISTEN_FDNAMES: of sockets that a server of ours bound itself.
constexpr std::string_view kOwnName = "weir-own";
constexpr const char* kReady = "WEIR_READY_FD";

/// At the most, so that they go at once.
constexpr std::size_t kMostSecrets = 4096;

/// The predecessor has been told that this process serves, and its descriptor is closed.
std::atomic<bool> reported{false};

/// Inherited descriptors that have an owner, or had one.
std::atomic<bool> taken[kMost];

bool number_of(const char* variable, long& value) {
  const char* text = std::getenv(variable);  // NOLINT(concurrency-mt-unsafe)
  if (text == nullptr) return false;
  const char* end = text + std::strlen(text);
  const auto parsed = std::from_chars(text, end, value);
  return parsed.ec == std::errc() && parsed.ptr == end;
}

/// What the child does between fork and exec: async-signal-safe calls only, no memory. All signals
/// are blocked so far: our handlers would tell the parent, whose descriptors it still has.
[[noreturn]] void become(char* const* argv, char* const* envp, char* pid_digits,
                         std::span<const int> descriptors, std::span<int> scratch, int status) {
  auto pid = static_cast<unsigned long>(::getpid());
  char digits[24];
  int count = 0;
  do {
    digits[count++] = static_cast<char>('0' + pid % 10);
    pid /= 10;
  } while (pid != 0);
  for (int i = 0; i < count; ++i) pid_digits[i] = digits[count - 1 - i];
  pid_digits[count] = '\0';
  // First out of the way of the numbers that they have to get, then there, without close-on-exec.
  const int above = kFirst + static_cast<int>(descriptors.size());
  status = ::fcntl(status, F_DUPFD_CLOEXEC, above);
  bool placed = status >= 0;
  for (std::size_t i = 0; placed && i < descriptors.size(); ++i) {
    scratch[i] = ::fcntl(descriptors[i], F_DUPFD_CLOEXEC, above);
    placed = scratch[i] >= 0;
  }
  for (std::size_t i = 0; placed && i < descriptors.size(); ++i) {
    placed = ::dup2(scratch[i], kFirst + static_cast<int>(i)) >= 0;
  }
  for (int number = 1; number < NSIG; ++number) {
    struct sigaction action{};
    if (::sigaction(number, nullptr, &action) != 0 || action.sa_handler == SIG_IGN) continue;
    action.sa_handler = SIG_DFL;
    (void)::sigaction(number, &action, nullptr);
  }
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  if (placed) ::execve(argv[0], argv, envp);
  const int error = errno;
  [[maybe_unused]] const auto written = ::write(status, &error, sizeof error);
  ::_exit(127);
}

/// Children that were killed and not waited for yet.
std::mutex ended_mutex;
std::vector<pid_t> ended_children;

void reap(pid_t more = 0) {
  const std::lock_guard lock(ended_mutex);
  if (more > 0) ended_children.push_back(more);
  std::erase_if(ended_children,
                [](pid_t child) { return ::waitpid(child, nullptr, WNOHANG) != 0; });
}

/// The program; `fds` become its descriptors from 3 on, the last one being what it reports to.
/// Throws `std::system_error` if it cannot be started.
pid_t start(const std::vector<std::string>& command, std::span<const int> fds, bool with_files) {
  const std::size_t listeners = fds.size() - 1;
  // All memory is taken before the fork: afterwards another thread may hold the heap's lock.
  std::vector<std::string> arguments = command;
  std::vector<std::string> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    if (!text.starts_with("LISTEN_") && !text.starts_with(kReady)) {  // PID, FDS, FDNAMES …
      environment.emplace_back(text);
    }
  }
  environment.push_back("LISTEN_FDS=" + std::to_string(listeners));
  environment.push_back(std::string(kReady) + "=" + std::to_string(kFirst + listeners));
  if (with_files) {
    std::string names(kOwnName);
    for (std::size_t i = 1; i < listeners; ++i) names += ":" + std::string(kOwnName);
    environment.push_back("LISTEN_FDNAMES=" + names);
  }
  constexpr std::string_view kPid = "LISTEN_PID=";
  environment.push_back(std::string(kPid) + std::string(24, '\0'));
  std::vector<char*> argv;
  std::vector<char*> envp;
  for (std::string& text : arguments) argv.push_back(text.data());
  for (std::string& text : environment) envp.push_back(text.data());
  argv.push_back(nullptr);
  envp.push_back(nullptr);
  std::vector<int> scratch(fds.size());
  int status[2];
  if (::pipe2(status, O_CLOEXEC) != 0) {
    throw std::system_error(errno, std::generic_category(), "weir: pipe");
  }
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  const Unbound unbound;  // the program, too
  const pid_t child = ::fork();
  if (child == 0) {
    become(argv.data(), envp.data(), environment.back().data() + kPid.size(), fds, scratch,
           status[1]);
  }
  const int fork_error = errno;
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  ::close(status[1]);
  int error = child < 0 ? fork_error : 0;
  // The end of the pipe comes when the exec has succeeded.
  ssize_t size = 0;
  while (child > 0 && (size = ::read(status[0], &error, sizeof error)) < 0 && errno == EINTR) {
  }
  if (child > 0 && size != sizeof error) error = 0;
  ::close(status[0]);
  if (error == 0) return child;
  if (child > 0) ::waitpid(child, nullptr, 0);
  throw std::system_error(error, std::generic_category(), "weir: cannot start " + command[0]);
}

/// A program that has been started and has not reported yet. It belongs to the loop until the
/// kernel has let go of the poll.
class Successor final : public LoopResource {
 public:
  Successor(EventLoop& loop, detail::SuccessorCommand& command)
      : loop_(loop),
        claim_(std::move(command.claim)),
        poll_(OperationKind::poll, [](Operation& op, Completion) noexcept {
          whole_of(op, &Successor::poll_)->on_poll();
        }) {
    int pair[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
      throw std::system_error(errno, std::generic_category(), "weir: socketpair");
    }
    fd_ = pair[0];
    try {
      command.descriptors.push_back(pair[1]);
      if (!command.secrets.empty() && command.secrets.size() <= kMostSecrets) {
        // One that does not ask for them is none of ours.
        (void)::send(pair[0], command.secrets.data(), command.secrets.size(),
                     MSG_NOSIGNAL | MSG_DONTWAIT);
        ::explicit_bzero(command.secrets.data(), command.secrets.size());
      }
      child_ = start(command.words, command.descriptors, command.with_files);
    } catch (...) {
      ::close(pair[0]);
      ::close(pair[1]);
      throw;
    }
    ::close(pair[1]);
    poll_.fd = fd_;
    poll_.poll(POLLIN);
    loop_.keep(*this);
  }

  void wait(Waiter& waiter) noexcept {
    waiter_ = &waiter;
    loop_.engine().submit(poll_);
  }
  void stop_waiting() noexcept { waiter_ = nullptr; }

  /// Whether it serves. If not it never will: it cannot report any more, and is killed.
  bool settle() noexcept {
    ::shutdown(fd_, SHUT_RD);
    char byte = 0;
    const bool ready = ::recv(fd_, &byte, 1, MSG_DONTWAIT) == 1;
    if (ready) {
      claim_.keep();
    } else {
      ::kill(child_, SIGKILL);
      claim_.end();
      child_fd_ = static_cast<int>(::syscall(SYS_pidfd_open, child_, 0));
    }
    reap(child_);
    settled_ = true;
    return ready;
  }

  void let_go() noexcept {
    waiter_ = nullptr;
    if (!settled_) (void)settle();
    dropped_ = true;
    if (poll_.in_flight()) {
      loop_.engine().cancel(poll_);
    } else {
      release();
    }
  }
  void end_with_loop() noexcept override {
    loop_ends_ = true;
    if (!dropped_) {
      let_go();
    } else if (poll_.in_flight()) {
      loop_.engine().cancel(poll_);
    }
  }

 private:
  void on_poll() noexcept {
    if (dropped_) {
      release();
    } else if (waiter_ != nullptr) {
      waiter_->wake();
    }
  }
  void release() noexcept {
    ::close(std::exchange(fd_, std::exchange(child_fd_, -1)));
    if (fd_ >= 0 && !loop_ends_) {  // killed: it may take a moment to end, and is a zombie then
      poll_.fd = fd_;
      loop_.engine().submit(poll_);
      return;
    }
    if (fd_ >= 0) ::close(fd_);
    reap();
    unlink();
    delete this;
  }

  EventLoop& loop_;
  detail::Claim claim_;
  Operation poll_;
  Waiter* waiter_ = nullptr;
  pid_t child_ = -1;
  int fd_ = -1;
  int child_fd_ = -1;  // of one that was killed; without it the next hand-over waits for it
  bool settled_ = false;
  bool dropped_ = false;
  bool loop_ends_ = false;
};

/// Until it has reported or ended.
class News {
 public:
  explicit News(Successor& successor) noexcept : successor_(successor) {}
  News(News&& other) noexcept : successor_(other.successor_) {}
  ~News() { successor_.stop_waiting(); }
  static constexpr bool await_ready() noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) noexcept {
    waiter_.suspend(handle);
    successor_.wait(waiter_);
  }
  void await_resume() const noexcept {}

 private:
  Successor& successor_;
  Waiter waiter_;
};

struct LetGo {
  void operator()(Successor* successor) const noexcept { successor->let_go(); }
};

}  // namespace

bool take_inherited_descriptor(int fd) {
  return !taken[static_cast<std::size_t>(fd - kFirst)].exchange(true);
}

std::vector<int> inherited_descriptors() {
  long pid = 0;
  long count = 0;
  std::vector<int> descriptors;
  if (!number_of("LISTEN_PID", pid) || pid != ::getpid() || !number_of("LISTEN_FDS", count)) {
    return descriptors;
  }
  long ready = 0;  // not for what this process starts itself
  if (number_of(kReady, ready)) (void)::fcntl(static_cast<int>(ready), F_SETFD, FD_CLOEXEC);
  for (int fd = kFirst; fd < kFirst + count && fd < kFirst + kMost; ++fd) {
    if (taken[static_cast<std::size_t>(fd - kFirst)]) continue;
    int listens = 0;
    socklen_t size = sizeof listens;
    if (::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) != 0 || listens == 0) continue;
    const int flags = ::fcntl(fd, F_GETFL);
    if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) continue;
    if (::fcntl(fd, F_SETFD, FD_CLOEXEC) == 0) descriptors.push_back(fd);
  }
  return descriptors;
}

bool inherited_files() noexcept {
  const char* names = std::getenv("LISTEN_FDNAMES");  // NOLINT(concurrency-mt-unsafe)
  return names != nullptr && std::string_view(names).starts_with(kOwnName);
}

bool has_predecessor() noexcept {
  long pid = 0;
  long fd = 0;
  return number_of("LISTEN_PID", pid) && pid == ::getpid() && number_of(kReady, fd);
}

std::string take_inherited_secrets() {
  long pid = 0;
  long fd = 0;
  if (reported || !number_of("LISTEN_PID", pid) || pid != ::getpid() || !number_of(kReady, fd)) {
    return {};
  }
  std::string secrets(kMostSecrets, '\0');
  const ssize_t size = ::recv(static_cast<int>(fd), secrets.data(), secrets.size(), MSG_DONTWAIT);
  secrets.resize(static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
  return secrets;
}

bool report_ready() noexcept {
  long pid = 0;
  long fd = 0;
  if (!number_of("LISTEN_PID", pid) || pid != ::getpid() || !number_of(kReady, fd)) return true;
  if (reported.exchange(true)) return true;
  const bool heard = ::send(static_cast<int>(fd), "1", 1, MSG_NOSIGNAL | MSG_DONTWAIT) == 1;
  ::close(static_cast<int>(fd));
  return heard;
}

Task<bool> start_successor(SuccessorCommand command) {
  if (command.words.empty()) throw std::invalid_argument("weir: the command to start is empty");
  if (command.descriptors.size() > static_cast<std::size_t>(kMost)) {
    throw std::invalid_argument("weir: too many listeners to hand over");
  }
  reap();
  std::unique_ptr<Successor, LetGo> successor;
  try {
    successor.reset(new Successor(EventLoop::current(), command));
  } catch (const std::system_error& error) {
    logging::write(logging::Level::error, std::string(error.what()) + "; serving on");
    co_return false;
  }
  News news(*successor);
  if (command.limit > Duration::zero()) {
    (void)co_await as_tuple(timeout(command.limit, std::move(news)));
  } else {
    co_await std::move(news);
  }
  const bool ready = successor->settle();
  if (!ready) {
    logging::write(logging::Level::error, "weir: " + command.words[0] +
                                              " ended, or was not ready in time, after a "
                                              "hand-over; serving on");
  }
  co_return ready;
}

}  // namespace weir::detail
