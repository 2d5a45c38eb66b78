#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "store.h"

namespace resp {

/// What a client gets: text that is ready to go, and behind it values that become text only as it
/// can be sent. So a client that does not read holds a piece of its answer, however long that is.
struct Reply {
  static constexpr std::size_t kPiece = 64 << 10;

  std::string text;

  void add_simple(std::string_view line) { text.append("+").append(line).append("\r\n"); }
  void add_error(std::string_view line) { text.append("-").append(line).append("\r\n"); }
  void add_nil() { text.append("$-1\r\n"); }
  void add_integer(long long number) { add_number(':', number); }
  void add_array(std::size_t size) { add_number('*', static_cast<long long>(size)); }
  void add_bulk(std::string_view bytes) {
    add_number('$', static_cast<long long>(bytes.size()));
    text.append(bytes).append("\r\n");
  }
  /// A value, nil if there is none: at once if there is room for it in this piece.
  void add_value(const Text& value) {
    if (values_.empty() && value == nullptr) return add_nil();
    if (values_.empty() && text.size() + value->size() <= kPiece) return add_bulk(*value);
    values_.push_back(value);
  }

  /// Makes text of values until there is a piece of it. False once there are none left.
  bool fill() {
    while (next_ < values_.size() && text.size() < kPiece) {
      Text& value = values_[next_];
      if (value == nullptr) {
        add_nil();
      } else {
        if (!begun_) add_number('$', static_cast<long long>(value->size()));
        begun_ = true;
        const std::size_t length = std::min(value->size() - given_, kPiece);
        text.append(*value, given_, length);
        given_ += length;
        if (given_ < value->size()) continue;
        text.append("\r\n");
        value = nullptr;
      }
      ++next_;
      given_ = 0;
      begun_ = false;
    }
    if (next_ < values_.size()) return true;
    std::vector<Text>().swap(values_);
    next_ = 0;
    return false;
  }

 private:
  void add_number(char kind, long long number) {
    char digits[24];
    const char* end = std::to_chars(digits, digits + sizeof digits, number).ptr;
    text.push_back(kind);
    text.append(digits, static_cast<std::size_t>(end - digits)).append("\r\n");
  }

  std::vector<Text> values_;
  std::size_t next_ = 0;   // of the values
  std::size_t given_ = 0;  // bytes of that one
  bool begun_ = false;     // its head has been given
};

}  // namespace resp
