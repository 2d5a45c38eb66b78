#pragma once

#include <string>
#include <string_view>

#include "message_parser.h"

namespace http {

struct ResponseHead : Message {
  int status = 0;
  std::string reason = {};
};

/// Takes the answers of another server out of a stream, with their bodies. What is refused, as
/// ambiguous, too large or no HTTP/1, is a `problem`, whatever its number.
class ResponseParser final : public MessageParser {
 public:
  /// `to_head`: they answer a HEAD, and have no body.
  ResponseParser(bool to_head, Limits limits)
      : MessageParser(HTTP_RESPONSE, limits, true), to_head_(to_head) {
    next();
  }

  [[nodiscard]] const ResponseHead& head() const { return head_; }
  /// No body comes after the head, whatever that says.
  [[nodiscard]] bool has_no_body() const override {
    return to_head_ || is_interim() || head_.status == 204 || head_.status == 304;
  }
  /// Another answer to the same request follows.
  [[nodiscard]] bool is_interim() const { return head_.status / 100 == 1; }
  /// Nothing more comes. True if that is how the answer ends.
  bool end_of_stream() {
    end_with_stream();
    return whole();
  }

  void next() {
    head_ = {};
    begin(head_);
  }

 private:
  void add_text(std::string_view text) override { head_.reason += text; }

  int judge_head() override {
    head_.status = parser().status_code;
    if (head_.status < 100 || head_.status > 999 || head_.status == 101) return 502;
    // These have none, so that what it announces would be taken for the next answer.
    const std::string* length = head_.header("content-length");
    const bool sized = length != nullptr && *length != "0";
    if ((head_.status == 204 || is_interim()) &&
        (sized || head_.header("transfer-encoding") != nullptr)) {
      return 502;
    }
    return problem_of_header();
  }

  bool to_head_;
  ResponseHead head_;
};

}  // namespace http
