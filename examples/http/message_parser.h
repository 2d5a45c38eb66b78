#pragma once

#include <llhttp.h>

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace http {

namespace detail {

inline bool is_one_of(unsigned char c, std::string_view others) {
  return std::isalnum(c) != 0 || others.find(static_cast<char>(c)) != std::string_view::npos;
}
inline bool is_token(std::string_view text) {
  return !text.empty() &&
         std::ranges::all_of(text, [](unsigned char c) { return is_one_of(c, "!#$%&'*+-.^_`|~"); });
}
/// A name or an address, and maybe a port (RFC 3986); none is allowed.
inline bool is_host(std::string_view text) {
  const std::size_t colon = text.find(':', text.starts_with('[') ? text.find(']') : 0);
  const std::string_view port = text.substr(std::min(colon, text.size()));
  std::string_view host = text.substr(0, text.size() - port.size());
  if (host.starts_with('[') != host.ends_with(']')) return false;
  std::string_view others = "-._~%!$&'()*+,;=";
  if (host.starts_with('[')) {
    host = host.substr(1, host.size() - 2);
    others = ".:";
  }
  return std::ranges::all_of(host, [&](unsigned char c) { return is_one_of(c, others); }) &&
         std::ranges::all_of(port.substr(std::min<std::size_t>(1, port.size())),
                             [](unsigned char c) { return std::isdigit(c) != 0; });
}
/// What a list of transfer codings asks for: 0 if that is "chunked" alone, or a status.
inline int refusal_of_codings(std::string_view list) {
  bool chunked = false;
  bool others = false;
  while (!list.empty()) {
    const std::size_t comma = std::min(list.find(','), list.size());
    std::string_view coding = list.substr(0, comma);
    list.remove_prefix(std::min(comma + 1, list.size()));
    while (coding.starts_with(' ') || coding.starts_with('\t')) coding.remove_prefix(1);
    while (coding.ends_with(' ') || coding.ends_with('\t')) coding.remove_suffix(1);
    if (chunked) return 400;  // it has to be the last, and once
    chunked = std::ranges::equal(coding, std::string_view("chunked"),
                                 [](unsigned char a, char b) { return std::tolower(a) == b; });
    others = others || !chunked;
  }
  if (!chunked) return 400;
  return others ? 501 : 0;
}

/// Looks at the ends of lines, of which parsers let many kinds pass: each is a carriage return and
/// a line feed, which do not stand alone; no line goes on in the next one; no other control
/// characters but tabs.
class Lines {
 public:
  /// False once something is wrong.
  bool see(std::string_view bytes) {
    for (const char c : bytes) {
      const auto byte = static_cast<unsigned char>(c);
      const bool blank = c == ' ' || c == '\t';
      sound_ = sound_ && (last_ == '\r') == (c == '\n') && !(last_ == '\n' && blank) &&
               !(last_ == kData && c != '\r') &&
               (byte >= ' ' ? byte != 0x7f : c == '\t' || c == '\r' || c == '\n');
      last_ = c;
    }
    return sound_;
  }
  /// Bytes that are in no line went by: next comes the end of one.
  void skip_data() { last_ = kData; }

 private:
  static constexpr char kData = '\0';

  char last_ = '\n';
  bool sound_ = true;
};

}  // namespace detail

/// What requests and answers have in common.
struct Message {
  std::vector<std::pair<std::string, std::string>> headers = {};  // names in lower case
  int minor_version = 1;                                          // of HTTP/1
  bool keep_alive = true;                                         // what the sender wants

  /// The first of that name; nullptr if there is none.
  [[nodiscard]] const std::string* header(std::string_view name) const {
    const auto found =
        std::ranges::find_if(headers, [&](auto& each) { return each.first == name; });
    return found == headers.end() ? nullptr : &found->second;
  }
};

struct Limits {
  std::size_t head = 16 << 10;  // the first line and the header
  std::size_t body = 64 << 10;
};

/// Takes messages out of a stream of bytes that comes in pieces of any size. The grammar is
/// llhttp's, strict. What could mean one thing here and another to the next one who reads it is
/// refused, and nothing that follows it is looked at (RFC 9112, section 11.2): where llhttp would
/// let it pass, older versions above all, this looks itself.
class MessageParser {
 public:
  MessageParser(const MessageParser&) = delete;
  MessageParser& operator=(const MessageParser&) = delete;

  /// Takes bytes, up to the end of the message at the most; gives how many it took. All, unless
  /// the message is `whole` or there is a `problem`.
  std::size_t feed(std::string_view bytes) {
    std::size_t taken = 0;
    bool paused = false;  // behind a head, where a message may end without another byte
    while (!whole_ && problem_ == 0 && (paused || taken < bytes.size())) {
      const std::size_t room =
          head_ends_ ? limits_.body + 1 - body_bytes_ : limits_.head + 1 - head_bytes_;
      const std::string_view piece = bytes.substr(taken, room);
      const bool in_head = !head_ends_;
      seen_ = piece.data();
      const llhttp_errno_t error = llhttp_execute(&parser_, piece.data(), piece.size());
      const char* end =
          error == HPE_OK ? piece.data() + piece.size() : llhttp_get_error_pos(&parser_);
      const auto count = static_cast<std::size_t>(end - piece.data());
      taken += count;
      (in_head ? head_bytes_ : body_bytes_) += count;
      judge(error, see_lines(end));
      paused = error == HPE_PAUSED;
      if (paused) llhttp_resume(&parser_);
    }
    return taken;
  }

  [[nodiscard]] bool whole() const { return whole_; }
  /// The status of the answer that such a message leads to; 0: all is well. Nothing can follow it.
  [[nodiscard]] int problem() const { return problem_; }
  /// The head has come.
  [[nodiscard]] bool has_head() const { return head_ends_ && problem_ == 0; }
  /// A part of a message has come.
  [[nodiscard]] bool midway() const { return head_bytes_ > 0 && !whole_; }
  /// What has come of the body since this was asked last, without the marks of chunks, where bodies
  /// are kept.
  [[nodiscard]] std::string take_body() { return std::exchange(body_, {}); }

 protected:
  MessageParser(llhttp_type_t type, Limits limits, bool keeps_bodies)
      : limits_(limits), keeps_bodies_(keeps_bodies), type_(type) {}
  ~MessageParser() = default;

  /// On to the next message, whose header goes to `message`.
  void begin(Message& message) {
    llhttp_init(&parser_, type_, &callbacks());
    parser_.data = this;
    message_ = &message;
    body_.clear();
    lines_ = {};
    head_bytes_ = body_bytes_ = 0;
    in_value_ = head_ends_ = whole_ = false;
    problem_ = 0;
  }

  /// The first line of a request, or the reason in that of an answer.
  virtual void add_text(std::string_view text) = 0;
  /// A head that has come whole: the status that refuses it, or 0.
  virtual int judge_head() = 0;
  /// No body comes, whatever the header says.
  [[nodiscard]] virtual bool has_no_body() const { return false; }

  /// What is wrong with a header, whoever sends it: the status, or 0.
  [[nodiscard]] int problem_of_header() const {
    std::size_t lengths = 0;
    std::size_t coded = 0;
    std::string codings;
    for (const auto& [name, value] : message_->headers) {
      if (!detail::is_token(name)) return 400;
      if (name == "content-length" && ++lengths > 1) return 400;
      if (name == "transfer-encoding") codings += (coded++ > 0 ? "," : "") + value;
    }
    if (parser_.http_major != 1) return 505;
    if (coded > 0 && (lengths > 0 || parser_.http_minor == 0)) return 400;
    return coded > 0 ? detail::refusal_of_codings(codings) : 0;
  }

  [[nodiscard]] const llhttp_t& parser() const { return parser_; }
  [[nodiscard]] const Limits& limits() const { return limits_; }
  /// The stream has ended, and with it a message that goes on until then.
  void end_with_stream() {
    if (!whole_ && llhttp_message_needs_eof(&parser_) != 0 && has_head()) whole_ = true;
  }

 private:
  static MessageParser& of(llhttp_t* parser) { return *static_cast<MessageParser*>(parser->data); }

  static const llhttp_settings_t& callbacks() {
    static const llhttp_settings_t settings = [] {
      llhttp_settings_t made;
      llhttp_settings_init(&made);
      made.on_url = [](llhttp_t* parser, const char* data, std::size_t size) {
        of(parser).add_text({data, size});
        return 0;
      };
      made.on_status = made.on_url;
      made.on_header_field = [](llhttp_t* parser, const char* data, std::size_t size) {
        of(parser).add_name({data, size});
        return 0;
      };
      made.on_header_value = [](llhttp_t* parser, const char* data, std::size_t size) {
        of(parser).add_value({data, size});
        return 0;
      };
      made.on_headers_complete = [](llhttp_t* parser) { return of(parser).end_head(); };
      made.on_body = [](llhttp_t* parser, const char* data, std::size_t size) {
        of(parser).see_lines(data);
        of(parser).lines_.skip_data();
        of(parser).seen_ = data + size;
        if (of(parser).keeps_bodies_) of(parser).body_.append(data, size);
        return 0;
      };
      made.on_message_complete = [](llhttp_t* parser) {
        of(parser).whole_ = true;
        return static_cast<int>(HPE_PAUSED);
      };
      return made;
    }();
    return settings;
  }

  void add_name(std::string_view text) {
    if (head_ends_) return;  // behind a chunked body
    if (message_->headers.empty() || in_value_) message_->headers.emplace_back();
    in_value_ = false;
    for (const char c : text) {
      message_->headers.back().first +=
          static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
  }

  void add_value(std::string_view text) {
    if (head_ends_) return;
    in_value_ = true;
    message_->headers.back().second.append(text);
  }

  /// Pauses, so that head and body are counted apart; 1: there is no body; -1 ends the parsing.
  int end_head() {
    head_ends_ = true;
    message_->minor_version = parser_.http_minor;
    message_->keep_alive = llhttp_should_keep_alive(&parser_) != 0 && parser_.upgrade == 0;
    problem_ = judge_head();
    if (problem_ != 0) return -1;
    return has_no_body() ? 1 : static_cast<int>(HPE_PAUSED);
  }

  /// What stands outside of bodies, up to there.
  bool see_lines(const char* end) {
    const bool sound = lines_.see({seen_, static_cast<std::size_t>(end - seen_)});
    seen_ = end;
    return sound;
  }

  /// After a piece.
  void judge(llhttp_errno_t error, bool sound) {
    if (!sound) problem_ = 400;  // whatever the head says: it is how it would come byte by byte
    if (problem_ != 0) return;
    if (error == HPE_INVALID_METHOD) {
      problem_ = 501;
    } else if (error == HPE_INVALID_VERSION) {
      problem_ = 505;
    } else if (error != HPE_OK && error != HPE_PAUSED) {
      problem_ = 400;
    } else if (!head_ends_ && head_bytes_ > limits_.head) {
      problem_ = 431;
    } else if (body_bytes_ > limits_.body) {
      problem_ = 413;
    }
  }

  Limits limits_;
  bool keeps_bodies_;
  llhttp_type_t type_;
  llhttp_t parser_;
  Message* message_ = nullptr;
  std::string body_;
  detail::Lines lines_;
  const char* seen_ = nullptr;  // up to where `lines_` has looked
  std::size_t head_bytes_ = 0;
  std::size_t body_bytes_ = 0;
  bool in_value_ = false;
  bool head_ends_ = false;
  bool whole_ = false;
  int problem_ = 0;
};

}  // namespace http
