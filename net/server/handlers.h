#pragma once

#include <weir/coro/task_group.h>
#include <weir/net/server/share.h>

#include <cstdint>
#include <exception>

namespace weir::detail {

/// The handlers' coroutines: what leaves one harms no other.
class Share::Handlers final : private TaskGroup::Watcher, public TaskGroup {
 public:
  explicit Handlers(Share& share) : TaskGroup(share.loop_, this), share_(share) {}

  /// The number of the connection of the oldest.
  [[nodiscard]] std::uint64_t first_id() const noexcept {
    return reinterpret_cast<std::uintptr_t>(first_kept());
  }
  using TaskGroup::cancel_first;
  using TaskGroup::kept_above;
  using TaskGroup::visit_kept;

 private:
  void task_left() noexcept override { share_.core_->presence->leave(); }
  bool handle_failure(const std::exception_ptr& failure, const void* id) noexcept override {
    share_.handler_failed(failure, reinterpret_cast<std::uintptr_t>(id));
    return true;
  }

  Share& share_;
};

}  // namespace weir::detail
