#include <weir/core/log_line.h>
#include <weir/core/survey.h>
#include <weir/net/server/handlers.h>
#include <weir/net/server/share.h>

#include <cstddef>
#include <cstdint>

namespace weir::detail {

void Share::describe(LoopReport& report) const {
  const std::size_t first = report.connections.size();
  for (Connection* one = roster_.front(); one != nullptr; one = roster_.after(*one)) {
    one->describe(report);
  }
  if (handlers_ == nullptr) return;
  // Both stand in the order of their numbers.
  struct Between {
    ConnectionLine* next;
    ConnectionLine* end;
  } at{report.connections.data() + first, report.connections.data() + report.connections.size()};
  handlers_->visit_kept(&at, [](void* context, const Scope& task, const void* kept) {
    auto& [next, end] = *static_cast<Between*>(context);
    const auto id = reinterpret_cast<std::uintptr_t>(kept);
    while (next != end && next->id < id) ++next;
    if (next != end && next->id == id) next->handler = &task;
  });
}

bool Share::write_handled(LogLine& to, const Scope& running) const noexcept {
  const void* id = handlers_ == nullptr ? nullptr : handlers_->kept_above(running);
  if (id != nullptr) {
    roster_.write_name(to, core_->options.name, reinterpret_cast<std::uintptr_t>(id));
  }
  return id != nullptr;
}

}  // namespace weir::detail
