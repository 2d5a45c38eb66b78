#pragma once

#include <weir/core/survey.h>

#include <source_location>
#include <string>

namespace weir::detail {

/// "serve at server.cpp:12".
std::string words_of(const std::source_location& where);

/// Function, file and line, and what is waited for: "serve at server.cpp:12: a read".
std::string describe(const TaskLine& line);

}  // namespace weir::detail
