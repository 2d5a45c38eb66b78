#pragma once

#include <cstdint>

namespace weir::detail {

/// How far a connection is on its way to its end: its states, and what goes with them.
class Ending {
 public:
  enum State : std::uint8_t { open, fin_sent, flushing, lingering, broken, aborting, gone };

  Ending& operator=(State state) noexcept {
    state_ = state;
    return *this;
  }
  operator State() const noexcept { return state_; }  // NOLINT(google-explicit-constructor)

  /// The user closed it, or it broke.
  [[nodiscard]] bool is_closing() const noexcept { return state_ >= flushing; }
  [[nodiscard]] bool is_broken() const noexcept { return state_ >= broken; }
  /// Whether hanging up is the peer's doing alone.
  [[nodiscard]] bool fin_is_out() const noexcept {
    return state_ == fin_sent || state_ == lingering;
  }

  /// It ends with RST.
  [[nodiscard]] bool by_reset() const noexcept { return reset_; }
  void set_reset(bool needed = true) noexcept { reset_ = reset_ || needed; }

  // The last word of the transform, when it broke.
  [[nodiscard]] bool says_last() const noexcept { return last_word_ == LastWord::due; }
  [[nodiscard]] bool has_last_word() const noexcept { return last_word_ != LastWord::none; }
  /// Broken, and the transform has nothing to say about it any more.
  [[nodiscard]] bool is_mute() const noexcept { return is_broken() && !says_last(); }
  void will_say_last() noexcept { last_word_ = LastWord::due; }
  void has_said_last() noexcept { last_word_ = LastWord::said; }
  void say_nothing() noexcept { last_word_ = LastWord::none; }

 private:
  enum class LastWord : std::uint8_t { none, due, said };

  State state_ = open;
  LastWord last_word_ = LastWord::none;
  bool reset_ = false;
};

}  // namespace weir::detail
