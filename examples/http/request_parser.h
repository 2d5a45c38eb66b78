#pragma once

#include <http_parser.h>

#include <algorithm>
#include <cctype>
#include <climits>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace http {

struct Request {
  std::string method;
  std::string target;
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case
  int minor_version = 1;                                     // of HTTP/1
  bool keep_alive = true;                                    // what the client wants

  /// The first of that name; nullptr if there is none.
  [[nodiscard]] const std::string* header(std::string_view name) const {
    const auto found =
        std::ranges::find_if(headers, [&](auto& each) { return each.first == name; });
    return found == headers.end() ? nullptr : &found->second;
  }
};

struct Limits {
  std::size_t head = 16 << 10;  // the request line and the header
  std::size_t body = 64 << 10;  // which is thrown away: GET and HEAD need none
};

/// Takes requests out of a stream of bytes that comes in pieces of any size. The grammar is
/// http_parser's; this adds limits and says which status answers what it refuses.
class RequestParser {
 public:
  explicit RequestParser(Limits limits = {}) : limits_(limits) { next(); }
  RequestParser(const RequestParser&) = delete;
  RequestParser& operator=(const RequestParser&) = delete;

  /// Takes bytes, up to the end of the request at the most; gives how many it took. All, unless
  /// the request is `whole` or there is a `problem`.
  std::size_t feed(std::string_view bytes) {
    std::size_t taken = 0;
    while (!whole_ && problem_ == 0 && taken < bytes.size()) {
      const std::size_t room =
          head_ends_ ? limits_.body + 1 - body_bytes_ : limits_.head + 1 - head_bytes_;
      const std::string_view piece = bytes.substr(taken, room);
      const bool in_head = !head_ends_;
      const std::size_t count =
          http_parser_execute(&parser_, &callbacks(), piece.data(), piece.size());
      taken += count;
      (in_head ? head_bytes_ : body_bytes_) += count;
      if (problem_ != 0 || whole_) break;
      if (in_head && head_ends_) {
        http_parser_pause(&parser_, 0);
      } else {
        judge(count == piece.size());
      }
    }
    return taken;
  }

  [[nodiscard]] bool whole() const { return whole_; }
  /// The status of the answer that such a request gets; 0: all is well. Nothing can follow it.
  [[nodiscard]] int problem() const { return problem_; }
  /// A part of a request has come.
  [[nodiscard]] bool midway() const { return head_bytes_ > 0 && !whole_; }
  [[nodiscard]] const Request& request() const { return request_; }

  /// On to the next request.
  void next() {
    http_parser_init(&parser_, HTTP_REQUEST);
    parser_.data = this;
    request_ = {};
    head_bytes_ = body_bytes_ = 0;
    in_value_ = head_ends_ = whole_ = false;
    problem_ = 0;
  }

 private:
  static RequestParser& of(http_parser* parser) {
    return *static_cast<RequestParser*>(parser->data);
  }

  static const http_parser_settings& callbacks() {
    static const http_parser_settings settings = [] {
      http_parser_settings made;
      http_parser_settings_init(&made);
      made.on_url = [](http_parser* parser, const char* data, std::size_t size) {
        of(parser).request_.target.append(data, size);
        return 0;
      };
      made.on_header_field = [](http_parser* parser, const char* data, std::size_t size) {
        of(parser).add_name({data, size});
        return 0;
      };
      made.on_header_value = [](http_parser* parser, const char* data, std::size_t size) {
        of(parser).add_value({data, size});
        return 0;
      };
      made.on_headers_complete = [](http_parser* parser) { return of(parser).end_head(); };
      made.on_message_complete = [](http_parser* parser) {
        of(parser).whole_ = true;
        http_parser_pause(parser, 1);
        return 0;
      };
      return made;
    }();
    return settings;
  }

  void add_name(std::string_view text) {
    if (head_ends_) return;  // behind a chunked body
    if (request_.headers.empty() || in_value_) request_.headers.emplace_back();
    in_value_ = false;
    for (const char c : text) {
      request_.headers.back().first +=
          static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
  }

  void add_value(std::string_view text) {
    if (head_ends_) return;
    in_value_ = true;
    request_.headers.back().second.append(text);
  }

  /// Pauses, so that head and body are counted apart; -1 ends the parsing.
  int end_head() {
    head_ends_ = true;
    request_.method = http_method_str(static_cast<http_method>(parser_.method));
    request_.minor_version = parser_.http_minor;
    request_.keep_alive = http_should_keep_alive(&parser_) != 0 && parser_.upgrade == 0;
    const auto hosts =
        std::ranges::count_if(request_.headers, [](auto& each) { return each.first == "host"; });
    // http_parser lets blanks in names pass, behind which a field could hide from another server.
    const bool blanks = std::ranges::any_of(request_.headers, [](auto& each) {
      return each.first.empty() || each.first.find_first_of(" \t") != std::string::npos;
    });
    if (parser_.http_major != 1) {
      problem_ = 505;
    } else if (blanks || hosts > 1 || (hosts == 0 && parser_.http_minor > 0)) {
      problem_ = 400;
    } else if (request_.method != "GET" && request_.method != "HEAD") {
      problem_ = 405;
    } else if (request_.header("expect") != nullptr) {
      problem_ = 417;
    } else if (parser_.content_length != ULLONG_MAX && parser_.content_length > limits_.body) {
      problem_ = 413;
    }
    if (problem_ != 0) return -1;
    http_parser_pause(&parser_, 1);
    return 0;
  }

  /// After a piece that was not the last.
  void judge(bool took_all) {
    const http_errno error = HTTP_PARSER_ERRNO(&parser_);
    if (error == HPE_HEADER_OVERFLOW) {
      problem_ = 431;
    } else if (error == HPE_INVALID_METHOD) {
      problem_ = 501;
    } else if (error == HPE_INVALID_VERSION) {
      problem_ = 505;
    } else if (error != HPE_OK || !took_all) {
      problem_ = 400;
    } else if (!head_ends_ && head_bytes_ > limits_.head) {
      problem_ = 431;
    } else if (body_bytes_ > limits_.body) {
      problem_ = 413;
    }
  }

  Limits limits_;
  http_parser parser_;
  Request request_;
  std::size_t head_bytes_ = 0;
  std::size_t body_bytes_ = 0;
  bool in_value_ = false;
  bool head_ends_ = false;
  bool whole_ = false;
  int problem_ = 0;
};

}  // namespace http
