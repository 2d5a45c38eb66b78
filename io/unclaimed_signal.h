#pragma once

namespace weir::detail {

/// Takes a signal of this process in place of its default action, as long as the program leaves it
/// that. One that the program has a handler for, or ignores, when this is made is left alone, as is
/// one whose handler the program sets later; one that a `Signals` or `signal` holds meanwhile is
/// told to that alone. The default is back with the last of these, and in what a fork makes.
///
/// The handler is installed with SA_RESTART, and the signal unblocked in the thread that makes
/// this, which is to end it as well.
class UnclaimedSignal {
 public:
  /// Throws `std::system_error` for want of a descriptor.
  explicit UnclaimedSignal(int number);
  UnclaimedSignal(const UnclaimedSignal&) = delete;
  UnclaimedSignal& operator=(const UnclaimedSignal&) = delete;
  ~UnclaimedSignal();

  /// Readable once it has come, on any thread; -1: it is left alone.
  [[nodiscard]] int fd() const noexcept { return fd_; }
  /// Whether it has come since the last call.
  bool take();

 private:
  int fd_ = -1;
};

}  // namespace weir::detail
