#include "json.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <stdexcept>
#include <system_error>

namespace look {
namespace {

constexpr int kDeepest = 1000;  // a level takes two kilobytes of stack with AddressSanitizer

class Parser {
 public:
  explicit Parser(std::string_view text) noexcept : text_(text) {}

  Json whole() {
    Json value = any(0);
    skip_space();
    if (at_ != text_.size()) fail("something behind the value");
    return value;
  }

 private:
  [[noreturn]] void fail(const char* what) const {
    throw std::runtime_error("no JSON: " + std::string(what) + " at byte " + std::to_string(at_));
  }

  void skip_space() noexcept {
    const std::size_t next = text_.find_first_not_of(" \t\r\n", at_);
    at_ = next == std::string_view::npos ? text_.size() : next;
  }
  [[nodiscard]] bool takes(std::string_view word) noexcept {
    if (!text_.substr(at_).starts_with(word)) return false;
    at_ += word.size();
    return true;
  }
  void expect(char c) {
    skip_space();
    if (!takes({&c, 1})) fail("something else was expected");
  }

  Json any(int depth) {
    if (depth > kDeepest) fail("nested too deep");
    skip_space();
    if (takes("{")) return object(depth);
    if (takes("[")) return array(depth);
    if (takes("\"")) return string();
    if (takes("true")) return true;
    if (takes("false")) return false;
    if (takes("null")) return {};
    return number();
  }

  Json object(int depth) {
    Json::Members members;
    skip_space();
    if (takes("}")) return members;
    do {
      expect('"');
      std::string name = string();
      expect(':');
      members.emplace_back(std::move(name), any(depth + 1));
      skip_space();
    } while (takes(","));
    expect('}');
    return members;
  }

  Json array(int depth) {
    Json::Items items;
    skip_space();
    if (takes("]")) return items;
    do {
      items.push_back(any(depth + 1));
      skip_space();
    } while (takes(","));
    expect(']');
    return items;
  }

  Json number() {
    double value = 0;
    const char* const begin = text_.data() + at_;
    const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), value);
    if (error != std::errc() || !std::isfinite(value)) fail("no value");
    at_ += static_cast<std::size_t>(end - begin);
    return value;
  }

  std::string string() {
    std::string text;
    for (;;) {
      if (at_ == text_.size()) fail("a string without end");
      const char c = text_[at_++];
      if (c == '"') return text;
      if (c != '\\') {
        text += c;
        continue;
      }
      escape(text);
    }
  }

  void escape(std::string& text) {
    static constexpr std::string_view kEscapes = "\"\\/bfnrt";
    static constexpr std::string_view kMeant = "\"\\/\b\f\n\r\t";
    if (at_ == text_.size()) fail("a string without end");
    const char c = text_[at_++];
    if (c == 'u') {
      unsigned code = 0;
      const std::string_view digits = text_.substr(at_, 4);
      const auto [end, error] =
          std::from_chars(digits.data(), digits.data() + digits.size(), code, 16);
      if (error != std::errc() || end != digits.data() + 4) fail("a bad escape");
      at_ += 4;
      add_utf8(text, code);
    } else if (const std::size_t which = kEscapes.find(c); which != std::string_view::npos) {
      text += kMeant[which];
    } else {
      fail("a bad escape");
    }
  }

  /// Halves of pairs come out as they are: an inspector writes none.
  static void add_utf8(std::string& text, unsigned code) {
    const auto add = [&](unsigned byte) { text += static_cast<char>(byte); };
    if (code < 0x80) return add(code);
    if (code < 0x800) {
      add(0xC0 | code >> 6);
    } else {
      add(0xE0 | code >> 12);
      add(0x80 | (code >> 6 & 0x3F));
    }
    add(0x80 | (code & 0x3F));
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

void dump_text(std::string& to, std::string_view text) {
  to += '"';
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x20) {
      std::array<char, 8> code{};
      std::snprintf(code.data(), code.size(), "\\u%04x", static_cast<unsigned>(c));
      to += code.data();
      continue;
    }
    if (c == '"' || c == '\\') to += '\\';
    to += c;
  }
  to += '"';
}

void dump_number(std::string& to, double number) {
  std::array<char, 32> digits{};
  // All numbers of an inspector are whole; what is beyond 2^53 is near enough.
  std::snprintf(digits.data(), digits.size(), number == std::floor(number) ? "%.0f" : "%g", number);
  to += digits.data();
}

}  // namespace

Json Json::parse(std::string_view text) { return Parser(text).whole(); }

std::string Json::text() const {
  const auto* text = std::get_if<std::string>(&value_);
  return text != nullptr ? *text : std::string();
}

std::uint64_t Json::number() const noexcept {
  const auto* number = std::get_if<double>(&value_);
  return number != nullptr && *number >= 0 && *number < 1e19 ? static_cast<std::uint64_t>(*number)
                                                             : 0;
}

bool Json::yes() const noexcept {
  const auto* yes = std::get_if<bool>(&value_);
  return yes != nullptr && *yes;
}

const Json::Items& Json::items() const noexcept {
  static const Items kNone;
  const auto* items = std::get_if<Items>(&value_);
  return items != nullptr ? *items : kNone;
}

const Json& Json::operator[](std::string_view name) const noexcept {
  static const Json kNull;
  if (const auto* members = std::get_if<Members>(&value_)) {
    for (const auto& [key, value] : *members) {
      if (key == name) return value;
    }
  }
  return kNull;
}

Json Json::with(std::string name, const Json& value) const {
  Json whole = *this;
  auto* members = std::get_if<Members>(&whole.value_);
  if (members != nullptr && !value.is_null()) members->emplace_back(std::move(name), value);
  return whole;
}

std::string Json::dump() const {
  std::string text;
  dump(text, 0);
  return text + '\n';
}

void Json::dump(std::string& to, int depth) const {
  const char* separator = depth < 2 ? "\n" : "";
  const char* const comma = depth < 2 ? ",\n" : ", ";
  const auto next = [&] { to += std::exchange(separator, comma); };
  if (const auto* members = std::get_if<Members>(&value_)) {
    to += '{';
    for (const auto& [name, value] : *members) {
      next();
      dump_text(to, name);
      to += ": ";
      value.dump(to, depth + 1);
    }
    to += '}';
  } else if (const auto* items = std::get_if<Items>(&value_)) {
    to += '[';
    for (const Json& item : *items) {
      next();
      item.dump(to, depth + 1);
    }
    to += ']';
  } else if (const auto* text = std::get_if<std::string>(&value_)) {
    dump_text(to, *text);
  } else if (const auto* number = std::get_if<double>(&value_)) {
    dump_number(to, *number);
  } else if (const auto* yes = std::get_if<bool>(&value_)) {
    to += *yes ? "true" : "false";
  } else {
    to += "null";
  }
}

std::string harmless(std::string_view text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const auto next = i + 1 < text.size() ? static_cast<unsigned char>(text[i + 1]) : 0U;
    if (byte < 0x20 || byte == 0x7F) {
      result += '?';
    } else if (byte == 0xC2 && next >= 0x80 && next < 0xA0) {  // C1, in UTF-8
      result += '?';
      ++i;
    } else {
      result += text[i];
    }
  }
  return result;
}

}  // namespace look
