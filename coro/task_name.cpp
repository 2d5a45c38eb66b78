#include <weir/coro/locals.h>
#include <weir/coro/scheduler.h>
#include <weir/coro/task_name.h>

#include <cstddef>
#include <memory>
#include <string>

namespace weir {
namespace {

constexpr std::size_t kLongest = 128;

struct TaskName final : detail::LocalValue {
  explicit TaskName(std::string_view of) : LocalValue(detail::kTaskNameKey), text(of) {
    for (char& c : text) {
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
    }
  }
  [[nodiscard]] std::shared_ptr<const LocalValue> copy() const override {
    return std::make_shared<TaskName>(text);
  }
  std::string text;
};

}  // namespace

void task_name(std::string_view name) {
  detail::set_current_local(std::make_shared<TaskName>(name.substr(0, kLongest)));
}

std::string_view detail::name_of_task(const Scope& task) noexcept {
  const Locals* locals = task.locals();
  const LocalValue* found = locals == nullptr ? nullptr : locals->find(kTaskNameKey);
  return found == nullptr ? std::string_view() : static_cast<const TaskName*>(found)->text;
}

}  // namespace weir
