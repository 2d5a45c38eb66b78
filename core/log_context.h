#pragma once

#include <string_view>

namespace weir::detail {

/// What `logging::set_context` set for the task that runs now, until that sets another.
[[nodiscard]] std::string_view log_context() noexcept;

}  // namespace weir::detail
