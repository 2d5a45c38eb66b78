#include <weir/core/log_context.h>
#include <weir/core/log_line.h>
#include <weir/core/logging.h>
#include <weir/coro/locals.h>

#include <memory>
#include <string>

namespace weir {
namespace {

struct LogContext final : detail::LocalValue {
  explicit LogContext(std::string_view of) : LocalValue(detail::kLogContextKey), text(of) {}
  [[nodiscard]] std::shared_ptr<const LocalValue> copy() const override {
    return std::make_shared<LogContext>(text);
  }
  const std::string text;
};

}  // namespace

std::string_view detail::log_context() noexcept {
  const Locals* locals = current_locals();
  if (locals == nullptr) return {};
  const LocalValue* found = locals->find(kLogContextKey);
  return found == nullptr ? std::string_view() : static_cast<const LogContext*>(found)->text;
}

void logging::set_context(std::string_view text) {
  detail::set_current_local(std::make_shared<LogContext>(detail::LogLine() << text));
}

std::string logging::context() { return std::string(detail::log_context()); }

}  // namespace weir
