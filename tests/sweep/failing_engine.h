#pragma once

#include <weir/core/engine.h>
#include <weir/core/machine.h>
#include <weir/core/options.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <utility>
#include <vector>

namespace weir::test::sweep {

using namespace weir::detail;

/// Which call of the system fails, and with which of the errors that it may give.
struct Failure {
  std::uint64_t nth = 0;
  std::size_t variant = 0;  // of the errors, round and round
  std::atomic<bool> came = false;
  std::atomic<std::uint64_t> calls = 0;  // of all loops, each on its thread

  /// 0, or the error to give in place of a call.
  int next(std::initializer_list<int> errors) noexcept {
    if (calls++ != nth) return 0;
    came = true;
    return -errors.begin()[variant % errors.size()];
  }
};

/// The socket calls of a machine, one of which fails.
class FailingSockets final : public Sockets {
 public:
  FailingSockets(Sockets& real, Failure& failure) noexcept : real_(real), failure_(failure) {}

  int open(int family) override {
    const int error = failure_.next({EMFILE, ENOMEM, ENFILE});
    return error != 0 ? error : real_.open(family);
  }
  int bind(int fd, const RawAddress& address) override {
    const int error = failure_.next({EADDRINUSE, EACCES, ENOMEM});
    return error != 0 ? error : real_.bind(fd, address);
  }
  int listen(int fd, int backlog) override {
    const int error = failure_.next({EADDRINUSE, ENOBUFS});
    return error != 0 ? error : real_.listen(fd, backlog);
  }
  int connect(int fd, const RawAddress& address) override {
    const int error = failure_.next({ECONNREFUSED, EADDRNOTAVAIL, ENETUNREACH});
    return error != 0 ? error : real_.connect(fd, address);
  }
  int accept(int listener) override {
    const int error = failure_.next({ECONNABORTED, EMFILE, ENOMEM});
    return error != 0 ? error : real_.accept(listener);
  }
  int set(int fd, Option option, int value) override {
    const int error = failure_.next({ENOBUFS, EINVAL, ENOMEM});
    return error != 0 ? error : real_.set(fd, option, value);
  }
  int take_error(int fd) override { return real_.take_error(fd); }
  int local_address(int fd, RawAddress& address) override {
    const int error = failure_.next({ENOBUFS, EINVAL});
    return error != 0 ? error : real_.local_address(fd, address);
  }
  int peer_address(int fd, RawAddress& address) override {
    const int error = failure_.next({ENOTCONN, ENOBUFS});
    return error != 0 ? error : real_.peer_address(fd, address);
  }
  // shutdown(2): does not fail on a connection that has not broken, which its operations tell.
  int shutdown_send(int fd) override { return real_.shutdown_send(fd); }
  void stop_listening(int fd) noexcept override { real_.stop_listening(fd); }
  int unread_bytes(int fd) override { return real_.unread_bytes(fd); }
  int unacknowledged_bytes(int fd) override { return real_.unacknowledged_bytes(fd); }
  int look_at(int fd, std::uint16_t events) override { return real_.look_at(fd, events); }
  void close(int fd) noexcept override { real_.close(fd); }
  void hold_spare() noexcept override { real_.hold_spare(); }
  void release_spare() noexcept override { real_.release_spare(); }
  int accept_or_shed(int listener) override { return real_.accept_or_shed(listener); }
  int keep_accepted(int fd) noexcept override { return real_.keep_accepted(fd); }

 private:
  Sockets& real_;
  Failure& failure_;
};

/// The signals of a machine, of which none may be to be had.
class FailingSignals final : public weir::detail::SignalTable {
 public:
  FailingSignals(weir::detail::SignalTable& real, Failure& failure) noexcept
      : real_(real), failure_(failure) {}

  int hold(int fd, std::uint64_t signals) override {
    const int error = fd < 0 ? failure_.next({EMFILE, ENOMEM}) : 0;
    return error != 0 ? error : real_.hold(fd, signals);
  }
  std::uint64_t take(int fd) override { return real_.take(fd); }
  void let_go(int fd) noexcept override { real_.let_go(fd); }
  void raise(int number) noexcept override { real_.raise(number); }

 private:
  weir::detail::SignalTable& real_;
  Failure& failure_;
};

/// An engine, of whose operations one fails: the nth.
class FailingEngine final : public IoEngine {
 public:
  FailingEngine(std::unique_ptr<IoEngine> real, Failure& failure)
      : real_(std::move(real)), failure_(failure) {
    failed_.reserve(1);
  }

  [[nodiscard]] std::string_view name() const noexcept override { return real_->name(); }
  void attach() override { real_->attach(); }
  void detach() noexcept override { real_->detach(); }
  void abandon() noexcept override {
    deliver();
    real_->abandon();
  }
  void submit(Operation& operation) noexcept override {
    const int error = failure_.next(errors_of(operation.kind));
    if (error == 0) {
      real_->submit(operation);
      return;
    }
    operation.state = Operation::State::submitted;
    error_ = error;
    failed_.push_back(&operation);
  }
  void cancel(Operation& operation) noexcept override {
    if (failed_.empty() || failed_.front() != &operation) real_->cancel(operation);
  }
  void wait(TimePoint deadline) override {
    real_->wait(failed_.empty() ? deadline : TimePoint::min());
    deliver();
  }
  void wake() noexcept override { real_->wake(); }
  [[nodiscard]] bool idle() const noexcept override { return failed_.empty() && real_->idle(); }
  void add_metrics(Metrics& metrics) const noexcept override { real_->add_metrics(metrics); }

 private:
  static std::initializer_list<int> errors_of(OperationKind kind) noexcept {
    static constexpr std::initializer_list<int> kAccept = {ECONNABORTED, EMFILE, ENOMEM, EINTR};
    static constexpr std::initializer_list<int> kReceive = {ECONNRESET, ENOMEM, ETIMEDOUT, EINTR};
    static constexpr std::initializer_list<int> kSend = {EPIPE, EINTR, ENOBUFS, ECONNRESET};
    static constexpr std::initializer_list<int> kPoll = {ENOMEM, EINTR};
    static constexpr std::initializer_list<int> kFile = {EIO, EINTR, ENOMEM};
    switch (kind) {
      case OperationKind::accept:
        return kAccept;
      case OperationKind::receive:
      case OperationKind::receive_into:
        return kReceive;
      case OperationKind::send:
      case OperationKind::send_now:
        return kSend;
      case OperationKind::poll:
        return kPoll;
      case OperationKind::read_file:
        break;
    }
    return kFile;
  }

  void deliver() noexcept {
    if (failed_.empty()) return;
    Operation& operation = *std::exchange(failed_.front(), nullptr);
    failed_.clear();
    operation.state = Operation::State::idle;
    operation.on_complete(operation, Completion{error_, 0, nullptr});
  }

  std::unique_ptr<IoEngine> real_;
  Failure& failure_;
  std::vector<Operation*> failed_;  // one at the most
  int error_ = 0;
};

/// A machine, of whose calls one fails, or one of the operations of its engines.
class FailingMachine final : public weir::detail::Machine {
 public:
  FailingMachine(weir::detail::Machine& real, Failure& failure) noexcept
      : real_(real),
        failure_(failure),
        sockets_(real.sockets(), failure),
        signals_(real.signals(), failure) {}

  [[nodiscard]] TimePoint now() noexcept override { return real_.now(); }
  [[nodiscard]] std::uint64_t random() noexcept override { return real_.random(); }
  [[nodiscard]] Sockets& sockets() noexcept override { return sockets_; }
  [[nodiscard]] weir::detail::SignalTable& signals() noexcept override { return signals_; }
  std::unique_ptr<IoEngine> make_engine(const LoopOptions& options) override {
    return std::make_unique<FailingEngine>(real_.make_engine(options), failure_);
  }
  std::unique_ptr<weir::detail::LoopRunner> start_loop(const LoopOptions& options) override {
    return real_.start_loop(options);
  }
  Task<std::vector<RawAddress>> look_up(weir::detail::NameQuery query) override {
    return real_.look_up(std::move(query));
  }
  void start_work(weir::detail::WorkQueue& queue,
                  std::shared_ptr<weir::detail::Work> work) override {
    real_.start_work(queue, std::move(work));
  }
  Task<bool> start_successor(weir::detail::SuccessorCommand command) override {
    return real_.start_successor(std::move(command));
  }
  void begin_run(weir::detail::TurnWatch& turns, int cpu) override { real_.begin_run(turns, cpu); }
  void end_run(weir::detail::TurnWatch& turns) noexcept override { real_.end_run(turns); }

 private:
  weir::detail::Machine& real_;
  Failure& failure_;
  FailingSockets sockets_;
  FailingSignals signals_;
};

}  // namespace weir::test::sweep
