#include <weir/core/event_loop.h>
#include <weir/core/log_json.h>
#include <weir/core/log_line.h>

#include <unistd.h>

#include <charconv>
#include <cstdint>
#include <cstdio>
#include <ctime>

namespace weir::detail {
namespace {

constexpr std::string_view kReplacement = "\\ufffd";
/// For what follows the message, which is cut before it.
constexpr std::size_t kEnd = 2;

/// How many bytes the character takes that `text` begins with; 0: it is no UTF-8 (RFC 3629).
std::size_t length_of_character(std::string_view text) noexcept {
  const auto at = [&](std::size_t i) -> unsigned { return static_cast<unsigned char>(text[i]); };
  const unsigned first = at(0);
  if (first < 0x80) return 1;
  const std::size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((at(i) & 0xc0) != 0x80) return 0;
  }
  // Neither longer than needed, nor a surrogate, nor beyond the last.
  if ((first == 0xe0 && at(1) < 0xa0) || (first == 0xed && at(1) > 0x9f) ||
      (first == 0xf0 && at(1) < 0x90) || (first == 0xf4 && at(1) > 0x8f)) {
    return 0;
  }
  return length;
}

class Writer {
 public:
  explicit Writer(std::span<char> to) noexcept : to_(to) {}

  /// All of it or nothing.
  bool put(std::string_view text, std::size_t keep_free = 0) noexcept {
    if (to_.size() - size_ < text.size() + keep_free) return false;
    size_ += text.copy(to_.data() + size_, text.size());
    return true;
  }
  void put_number(std::int64_t number) noexcept {
    char digits[24];
    const auto end = std::to_chars(digits, digits + sizeof digits, number);
    put({digits, static_cast<std::size_t>(end.ptr - digits)});
  }
  /// Its characters up to the first that finds no room.
  void put_escaped(std::string_view text, std::size_t keep_free) noexcept {
    while (!text.empty()) {
      const std::size_t length = length_of_character(text);
      char code[8];
      std::string_view written = text.substr(0, length);
      if (length == 0) {
        written = kReplacement;
      } else if (text[0] == '"' || text[0] == '\\') {
        code[0] = '\\';
        code[1] = text[0];
        written = {code, 2};
      } else if (static_cast<unsigned char>(text[0]) < 0x20) {
        std::snprintf(code, sizeof code, "\\u%04x", static_cast<unsigned>(text[0]));
        written = {code, 6};
      }
      if (!put(written, keep_free)) return;
      text.remove_prefix(length == 0 ? 1 : length);
    }
  }
  void put_field(std::string_view name, std::string_view value) noexcept {
    if (value.empty()) return;
    put("\"");
    put(name);
    put("\":\"");
    // A third each at the most of what is there: the message is to have some, too.
    const std::size_t room = to_.size() - size_;
    put_escaped(value, room - room / 3);
    put("\",");
  }

  [[nodiscard]] std::size_t size() const noexcept { return size_; }

 private:
  std::span<char> to_;
  std::size_t size_ = 0;
};

std::string_view name_of(logging::Level level) noexcept {
  switch (level) {
    case logging::Level::debug:
      return "debug";
    case logging::Level::info:
      return "info";
    case logging::Level::warning:
      return "warning";
    case logging::Level::error:
      break;
  }
  return "error";
}

}  // namespace

std::size_t write_json_fields(std::span<char> to, std::string_view context,
                              std::string_view message) noexcept {
  Writer writer(to);
  LogLine connection;
  if (EventLoop* loop = EventLoop::current_or_null()) {
    writer.put_field("loop", loop->name());
    loop->write_handled(connection);
  }
  writer.put("\"thread\":");
  writer.put_number(::gettid());
  writer.put(",");
  writer.put_field("connection", connection);
  writer.put_field("context", context);
  writer.put("\"message\":\"");
  writer.put_escaped(message, kEnd);
  writer.put("\"}");
  return writer.size();
}

std::size_t write_json_head(std::span<char> to, std::chrono::system_clock::time_point time,
                            logging::Level level) noexcept {
  const auto since = std::chrono::floor<std::chrono::milliseconds>(time.time_since_epoch()).count();
  const std::int64_t part = ((since % 1000) + 1000) % 1000;
  const auto seconds = static_cast<std::time_t>((since - part) / 1000);
  std::tm utc{};
  ::gmtime_r(&seconds, &utc);
  char text[40];
  const std::size_t size = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S.", &utc);
  char milliseconds[8];
  std::snprintf(milliseconds, sizeof milliseconds, "%03d", static_cast<int>(part));
  Writer writer(to);
  writer.put("{\"time\":\"");
  writer.put({text, size});
  writer.put({milliseconds, 3});
  writer.put("Z\",\"level\":\"");
  writer.put(name_of(level));
  writer.put("\",");
  return writer.size();
}

}  // namespace weir::detail
