#pragma once

#include <weir/weir.h>

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

/// Messages of RFC 1035, as far as asking for addresses needs them.
namespace dns {

enum class Type : std::uint16_t { a = 1, cname = 5, aaaa = 28 };

inline constexpr std::size_t kHeader = 12;
inline constexpr std::size_t kLongestLabel = 63;
inline constexpr std::size_t kLongestName = 254;  // with a dot behind each label

/// What to send. Throws `std::invalid_argument` for a name that cannot be asked for.
inline std::string make_query(std::uint16_t id, std::string_view name, Type type) {
  std::string query;
  for (const int word : {int{id}, 0x0100, 1, 0, 0, 0}) {  // recursion desired, one question
    weir::append_big(query, static_cast<std::uint16_t>(word));
  }
  if (name.ends_with('.')) name.remove_suffix(1);
  if (name.empty()) throw std::invalid_argument("there is no name");
  if (name.size() >= kLongestName) throw std::invalid_argument("the name is too long");
  while (!name.empty()) {
    const std::string_view label = name.substr(0, name.find('.'));
    if (label.empty() || label.size() > kLongestLabel || label.size() + 1 == name.size()) {
      throw std::invalid_argument("'" + std::string(label) + "' is no label of a name");
    }
    query.append(1, static_cast<char>(label.size())).append(label);
    name.remove_prefix(std::min(label.size() + 1, name.size()));
  }
  query.push_back('\0');
  weir::append_big(query, static_cast<std::uint16_t>(type));
  weir::append_big(query, std::uint16_t{1});  // the Internet
  return query;
}

struct Answer {
  int code = 0;  // 0: no error, 2: the server failed, 3: there is no such name, …
  bool truncated = false;
  std::vector<std::string> addresses = {};
};

/// Takes a message apart. What would lie outside of it is 0 or empty, and `sound` then false.
class Reader {
 public:
  Reader(std::string_view message, std::size_t at) : message_(message), at_(at) {}

  [[nodiscard]] bool sound() const { return sound_; }

  std::string_view bytes(std::size_t count) {
    if (at_ > message_.size() || count > message_.size() - at_) {
      sound_ = false;
      return {};
    }
    at_ += count;
    return message_.substr(at_ - count, count);
  }
  std::size_t number(std::size_t size) {
    std::size_t value = 0;
    for (const char c : bytes(size)) value = value << 8 | static_cast<unsigned char>(c);
    return value;
  }
  /// In small letters, with a dot behind each label. A pointer leads to before where the part began
  /// that it stands in, so that there is an end of them.
  std::string name() {
    std::string text;
    std::size_t begin = at_;
    std::size_t behind = 0;  // the first pointer
    for (std::size_t size = number(1); sound_ && size != 0; size = number(1)) {
      if (size > kLongestLabel) {
        const std::size_t target = (size & 0x3f) << 8 | number(1);
        if (behind == 0) behind = at_;
        sound_ = sound_ && size >= 0xc0 && target < begin;
        at_ = begin = target;
      } else {
        for (const char c : bytes(size)) text += c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c;
        text += '.';
        sound_ = sound_ && text.size() <= kLongestName;
      }
    }
    if (behind != 0) at_ = behind;
    return text;
  }

 private:
  std::string_view message_;
  std::size_t at_;
  bool sound_ = true;
};

/// Nothing unless the message answers the query, by its number and its question, and is whole; if
/// it says that it is cut off, there are no addresses.
inline std::optional<Answer> read_answer(std::string_view message, std::string_view query) {
  const std::string_view question = query.substr(kHeader);
  if (message.size() < query.size() || message.substr(0, 2) != query.substr(0, 2)) return {};
  if (message.substr(kHeader, question.size()) != question) return {};
  Reader header(message, 2);
  const std::size_t flags = header.number(2);
  const std::size_t questions = header.number(2);
  const std::size_t records = header.number(2);
  constexpr std::size_t kReply = 0x8000;
  constexpr std::size_t kReplyAndOpcode = 0xf800;
  if ((flags & kReplyAndOpcode) != kReply || questions != 1) return {};
  Answer answer{.code = static_cast<int>(flags & 0xf), .truncated = (flags & 0x0200) != 0};
  if (answer.truncated) return answer;

  Reader asked(query, kHeader);
  std::string name = asked.name();  // or what that is another name of
  const auto type = static_cast<Type>(asked.number(2));
  Reader reader(message, query.size());
  for (std::size_t i = 0; i < records && reader.sound(); ++i) {
    const bool is_ours = reader.name() == name;
    const auto kind = static_cast<Type>(reader.number(2));
    (void)reader.number(6);  // class, and how long it may be kept
    const std::size_t size = reader.number(2);
    Reader inside = reader;
    const std::string_view data = reader.bytes(size);
    if (is_ours && kind == Type::cname) {
      name = inside.name();
      if (!inside.sound()) return {};
    } else if (is_ours && kind == type && data.size() == (type == Type::a ? 4 : 16)) {
      std::array<char, INET6_ADDRSTRLEN> text{};
      ::inet_ntop(type == Type::a ? AF_INET : AF_INET6, data.data(), text.data(), text.size());
      answer.addresses.emplace_back(text.data());
    }
  }
  if (!reader.sound()) return {};
  return answer;
}

}  // namespace dns
