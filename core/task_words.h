#pragma once

#include <weir/core/survey.h>

#include <string>

namespace weir::detail {

/// A coroutine's name out of what the compiler says that its function is called: without result,
/// parameters and what a compiler adds.
std::string function_name(const char* signature);

/// Function, file and line, and what is waited for: "serve at server.cpp:12: a read".
std::string describe(const TaskLine& line);

}  // namespace weir::detail
