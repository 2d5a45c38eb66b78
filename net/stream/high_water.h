#pragma once

#include <cstddef>
#include <functional>
#include <utility>

namespace weir::detail {

/// Whom to tell that an outbox has come to its high mark.
class HighWater {
 public:
  void set(std::function<void(std::size_t)> function) { function_ = std::move(function); }
  /// The mark was reached from below.
  void cross() noexcept { crossed_ = true; }
  /// It was, and somebody wants to know.
  [[nodiscard]] bool tells() const noexcept { return crossed_ && function_ != nullptr; }
  /// Whom to tell that: once for each time, or nobody.
  [[nodiscard]] std::function<void(std::size_t)> take() noexcept {
    if (!std::exchange(crossed_, false)) return {};
    try {
      return function_;  // a copy: it may set another
    } catch (...) {
      return {};
    }
  }

 private:
  std::function<void(std::size_t)> function_;
  bool crossed_ = false;
};

}  // namespace weir::detail
