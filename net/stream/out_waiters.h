#pragma once

#include <weir/coro/list.h>
#include <weir/net/stream/outbox.h>

#include <cstdint>

namespace weir::detail {

/// Those who wait at an outbox: to send, for a flush, or only to be resumed and told what broke it.
class Outbox::Waiters {
 public:
  Waiters() noexcept = default;
  Waiters(const Waiters&) = delete;
  Waiters& operator=(const Waiters&) = delete;
  ~Waiters();

  void add(Send& send) noexcept { sends_.push_back(send); }
  void add(Flush& flush) noexcept { flushes_.push_back(flush); }
  /// Who has waited to send for longest, or nullptr.
  [[nodiscard]] Send* first_send() noexcept { return sends_.front(); }
  static void let_go(Send& send) noexcept;
  /// Lets the flushes go whose bytes are among the first `gone`; the level has flushes no more once
  /// none waits on.
  void settle(std::uint64_t gone, OutboxLevel& level) noexcept;
  /// Lets all go, with the failure; of what broke the outbox they are told once, for all.
  void end(Failure failure, bool broken) noexcept;

  /// Whether somebody is about to be told.
  [[nodiscard]] bool hears() const noexcept { return untold_ != nullptr; }
  /// It has been told, or goes.
  void forget(Waiting& waiting) noexcept;

 private:
  void tell(Waiting& waiting, Failure failure, bool broken) noexcept;

  List<Send> sends_;
  List<Flush> flushes_;
  Waiting* untold_ = nullptr;  // in the order in which they resume
  Waiting** last_untold_ = &untold_;
};

}  // namespace weir::detail
