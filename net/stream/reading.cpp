#include <weir/net/stream/reading.h>

#include <stdexcept>

namespace weir::detail {

void throw_failure(Failure failure) { throw std::system_error(code_of(failure)); }

ReadUntilAwaiter::ReadUntilAwaiter(Inbox* of, std::string_view delimiter, std::size_t most)
    : PatientReading(of), delimiter_(delimiter), most_(most) {
  if (!delimiter.empty() && delimiter.size() <= most) return;
  throw std::invalid_argument(
      "weir: read_until: the delimiter has " + std::to_string(delimiter.size()) +
      " bytes; it must have at least one, and no more than max, " + std::to_string(most));
}

}  // namespace weir::detail
