#include <weir/core/log_line.h>

namespace weir::detail {

LogLine& LogLine::operator<<(std::string_view text) noexcept {
  constexpr std::string_view kDigits = "0123456789abcdef";
  for (const char letter : text) {
    const auto code = static_cast<unsigned char>(letter);
    const bool control = code < 0x20 || code == 0x7f;
    if (sizeof text_ - size_ < (control ? 4U : 1U)) break;
    if (control) {
      text_[size_++] = '\\';
      text_[size_++] = 'x';
      text_[size_++] = kDigits[code >> 4U];
      text_[size_++] = kDigits[code & 0xfU];
    } else {
      text_[size_++] = letter;
    }
  }
  return *this;
}

void write_failure(logging::Level level, std::string_view what,
                   const std::exception_ptr& failure) noexcept {
  LogLine line;
  line << what << ": ";
  try {
    std::rethrow_exception(failure);
  } catch (const std::exception& exception) {
    line << exception.what();
  } catch (...) {
    line << "an exception of unknown type";
  }
  logging::write(level, line);
}

}  // namespace weir::detail
