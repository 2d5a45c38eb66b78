#pragma once

#include <string>

namespace weir::schedules {

/// The text with each place, as `place` gives it, by its file and line, from the debugger's
/// information if there is some and binutils' addr2line.
std::string with_places_named(const std::string& text);

}  // namespace weir::schedules
