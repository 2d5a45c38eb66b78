#pragma once

#include <weir/core/machine.h>

#include <system_error>
#include <vector>

namespace weir::detail {

/// Errors of getaddrinfo(3) that have no other name.
const std::error_category& resolver_category() noexcept;

/// getaddrinfo(3), on a thread. See `Machine::look_up`.
Task<std::vector<RawAddress>> kernel_look_up(NameQuery query);

}  // namespace weir::detail
