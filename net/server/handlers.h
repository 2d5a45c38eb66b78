#pragma once

#include <weir/coro/task_group.h>
#include <weir/net/log_words.h>
#include <weir/net/server/share.h>

#include <cstdint>
#include <exception>

namespace weir::detail {

/// The handlers' coroutines: what leaves one harms no other.
class Share::Handlers final : private TaskGroup::Watcher, public TaskGroup {
 public:
  explicit Handlers(Share& share) : TaskGroup(share.gate_.loop(), this), share_(share) {}

  /// The number of the connection of the oldest.
  [[nodiscard]] std::uint64_t first_id() const noexcept {
    return reinterpret_cast<std::uintptr_t>(first_kept());
  }
  using TaskGroup::cancel_first;
  using TaskGroup::kept_above;
  using TaskGroup::visit_kept;

  /// The frame may still have the connection, or is about to close it. What the peer got by then is
  /// not to look like all.
  static void failed(Share& share, const std::exception_ptr& failure, std::uint64_t id) noexcept {
    Connection* stream = share.roster_.find(id);
    // What broke may have been another connection of the handler's: to a server behind this one.
    const bool is_over = stream == nullptr || stream->ending().is_closing() ||
                         (tells_of_an_end(failure) && stream->receiver().at_end());
    const bool peers_doing = is_a_peers_doing(failure) && (is_over || !tells_of_a_break(failure));
    share.core_->handler_failed(failure, share.roster_, id, peers_doing);
    if (!peers_doing && stream != nullptr) stream->ending().end_with_reset();
  }

 private:
  void task_left() noexcept override { share_.core_->presence->leave(); }
  bool handle_failure(const std::exception_ptr& failure, const void* id) noexcept override {
    failed(share_, failure, reinterpret_cast<std::uintptr_t>(id));
    return true;
  }

  Share& share_;
};

}  // namespace weir::detail
