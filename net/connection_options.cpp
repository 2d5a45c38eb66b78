#include <weir/net/connection_options.h>

#include <stdexcept>
#include <string>

namespace weir::detail {
namespace {

[[noreturn]] void reject(const char* options, const char* option, const std::string& value,
                         const std::string& why) {
  throw std::invalid_argument("weir: " + std::string(options) + "::" + option + " is " + value +
                              "; " + why);
}

}  // namespace

void check(WaterMarks marks, std::size_t input_high, const char* options) {
  if (marks.high == 0) reject(options, "water_marks.high", "0", "it must be at least 1");
  if (marks.low > marks.high) {
    reject(options, "water_marks.low", std::to_string(marks.low),
           "it must not be above high, " + std::to_string(marks.high));
  }
  if (input_high == 0) reject(options, "input_high", "0", "it must be at least 1");
}

void check(const ConnectionOptions& options) {
  check(options.water_marks, options.input_high, "ConnectionOptions");
  if (options.linger.count() < 0) {
    reject("ConnectionOptions", "linger", std::to_string(options.linger.count()) + " ms",
           "it must not be negative");
  }
}

}  // namespace weir::detail
