#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace resp {

/// The stream is no RESP; the text goes to the client, and the connection ends.
struct ProtocolError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Limits {
  std::size_t line = 64 << 10;       // an inline command, or the head of an array or a string
  std::size_t arguments = 64 << 10;  // of one command
  std::size_t command = 16 << 20;    // bytes of one command
};

/// Takes commands out of a stream of bytes that comes in pieces of any size: arrays of bulk strings
/// ("*2\r\n$3\r\nGET\r\n$1\r\nk\r\n") and inline commands ("GET k\r\n", words between blanks).
/// Holds no more than one unfinished command and what was fed last, allocates nothing on the
/// strength of an announced length, and searches no byte twice.
class Parser {
 public:
  using Command = std::vector<std::string_view>;

  explicit Parser(Limits limits = {}) : limits_(limits) {}

  /// Call `next` until it gives nullptr before feeding more.
  void feed(std::string_view bytes) {
    buffer_.erase(0, start_);
    place_ -= start_;
    searched_ -= start_;
    start_ = 0;
    if (buffer_.empty() && buffer_.capacity() > kKept) std::string().swap(buffer_);
    if (command_.capacity() > kKept / sizeof(command_[0])) Command().swap(command_);
    buffer_.append(bytes);
  }

  /// The next whole command, valid until the next call; nullptr if bytes of it are missing. Throws
  /// `ProtocolError`; the parser is then of no more use.
  const Command* next() {
    while (left_ == 0) {
      const auto line = take_line();
      if (!line) return nullptr;
      if (line->starts_with('*')) {
        const auto count = number_in(line->substr(1));
        if (!count || *count > static_cast<long long>(limits_.arguments)) {
          throw ProtocolError("invalid multibulk length");
        }
        if (*count > 0) left_ = static_cast<std::size_t>(*count);
      } else if (split(*line)) {
        start_ = place_;
        return &command_;
      }
      if (left_ == 0) start_ = place_;  // an empty line, or an array of nothing
    }
    while (left_ > 0) {
      if (!take_string()) return nullptr;
      --left_;
    }
    command_.clear();
    for (const auto& [offset, length] : strings_) {
      command_.emplace_back(buffer_.data() + start_ + offset, length);
    }
    strings_.clear();
    if (strings_.capacity() > kKept / sizeof(strings_[0])) decltype(strings_)().swap(strings_);
    start_ = place_;
    return &command_;
  }

  /// A part of a command has come.
  [[nodiscard]] bool midway() const noexcept { return start_ < buffer_.size(); }

 private:
  static constexpr std::size_t kKept = 64 << 10;  // of what is empty

  static std::optional<long long> number_in(std::string_view text) {
    long long number = 0;
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, number);
    if (error != std::errc() || stop != end) return std::nullopt;
    return number;
  }

  /// Up to the next line feed, without it and the carriage return before it.
  std::optional<std::string_view> take_line() {
    const std::size_t end = buffer_.find('\n', searched_);
    const std::size_t length = (end == std::string::npos ? buffer_.size() : end) - place_;
    if (length > limits_.line) throw ProtocolError("too big inline request");
    if (end == std::string::npos) {
      searched_ = buffer_.size();
      return std::nullopt;
    }
    std::string_view line(buffer_.data() + place_, length);
    if (line.ends_with('\r')) line.remove_suffix(1);
    place_ = searched_ = end + 1;
    return line;
  }

  /// True once a whole bulk string has been added to `strings_`.
  bool take_string() {
    if (!length_) {
      const auto line = take_line();
      if (!line) return false;
      if (!line->starts_with('$')) throw ProtocolError("expected '$'");
      const auto length = number_in(line->substr(1));
      if (!length || *length < 0 || *length > static_cast<long long>(limits_.command)) {
        throw ProtocolError("invalid bulk length");
      }
      length_ = static_cast<std::size_t>(*length);
      if (place_ - start_ + *length_ + 2 > limits_.command) {
        throw ProtocolError("command too long");
      }
    }
    if (buffer_.size() - place_ < *length_ + 2) return false;
    if (buffer_.compare(place_ + *length_, 2, "\r\n") != 0) {
      throw ProtocolError("expected the end of a bulk string");
    }
    strings_.emplace_back(place_ - start_, *length_);
    place_ = searched_ = place_ + *length_ + 2;
    length_.reset();
    return true;
  }

  bool split(std::string_view line) {
    constexpr std::string_view kBlanks = " \t\v\f\r";
    command_.clear();
    for (std::size_t begin = 0; (begin = line.find_first_not_of(kBlanks, begin)) < line.size();) {
      const std::size_t end = std::min(line.find_first_of(kBlanks, begin), line.size());
      command_.push_back(line.substr(begin, end - begin));
      begin = end;
    }
    return !command_.empty();
  }

  Limits limits_;
  std::string buffer_;
  std::size_t start_ = 0;     // of the current command
  std::size_t place_ = 0;     // up to where it is understood
  std::size_t searched_ = 0;  // up to where there is no line feed
  std::size_t left_ = 0;      // strings of the current array that have not come
  std::optional<std::size_t> length_;
  std::vector<std::pair<std::size_t, std::size_t>> strings_;  // offset from `start_`, and length
  Command command_;
};

}  // namespace resp
