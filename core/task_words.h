#pragma once

#include <weir/core/survey.h>

#include <string>

namespace weir::detail {

/// Function, file and line, and what is waited for: "serve at server.cpp:12: a read".
std::string describe(const TaskLine& line);

}  // namespace weir::detail
