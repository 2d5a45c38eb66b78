#pragma once

#include <algorithm>
#include <string>
#include <string_view>

#include "message_parser.h"

namespace http {

struct Request : Message {
  std::string method = {};
  std::string target = {};
};

/// Takes requests out of a stream. This also has the limits, and says which status answers what it
/// refuses.
class RequestParser final : public MessageParser {
 public:
  /// What they are for: files, for which GET and HEAD are enough and bodies are thrown away; or to
  /// be handed on, with any method that is no tunnel and `take_body` in pieces.
  enum class Use { files, forward };

  explicit RequestParser(Limits limits = {}, Use use = Use::files)
      : MessageParser(HTTP_REQUEST, limits, use == Use::forward), use_(use) {
    next();
  }

  /// The request is, as far as it has come, one for a head: no answer to it has a body.
  [[nodiscard]] bool is_head() const { return parser().method == HTTP_HEAD; }
  [[nodiscard]] const Request& request() const { return request_; }

  /// On to the next request.
  void next() {
    request_ = {};
    begin(request_);
  }

 private:
  void add_text(std::string_view text) override { request_.target += text; }

  int judge_head() override {
    request_.method = llhttp_method_name(static_cast<llhttp_method_t>(parser().method));
    std::size_t hosts = 0;
    for (const auto& [name, value] : request_.headers) {
      if (name == "host" && (++hosts > 1 || !detail::is_host(value))) return 400;
    }
    if (const int problem = problem_of_header(); problem != 0) return problem;
    if (hosts == 0 && request_.minor_version > 0) return 400;
    const std::string* expected = request_.header("expect");
    if (use_ == Use::forward) {
      if (request_.method == "CONNECT" || request_.method == "TRACE") return 405;
      if (expected != nullptr && *expected != "100-continue") return 417;
    } else {
      if (request_.method != "GET" && request_.method != "HEAD") return 405;
      if (expected != nullptr) return 417;
    }
    const bool sized = request_.header("content-length") != nullptr;
    return sized && parser().content_length > limits().body ? 413 : 0;
  }

  Use use_;
  Request request_;
};

}  // namespace http
