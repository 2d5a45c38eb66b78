#pragma once

#include <weir/weir.h>

#include <chrono>
#include <cstdint>
#include <exception>
#include <string>
#include <string_view>
#include <system_error>
#include <tuple>
#include <utility>

#include "../common/next_bytes.h"
#include "forwarding.h"

namespace http {

/// A request cannot be answered but with that status.
struct Refused : std::exception {
  explicit Refused(int number) : status(number) {}
  int status;
};

/// A connection with the requests that come on it.
class Client {
 public:
  Client(weir::TcpConnection& connection, Limits limits)
      : conn(connection), parser(limits, RequestParser::Use::forward) {}

  /// Gives the parser more; false at the end of the stream, or, between two requests, once the
  /// server drains. Throws `std::errc::timed_out`, and `Refused` for what is no request.
  weir::Task<bool> parse_more(weir::Duration limit) {
    if (left_.empty()) {
      data_ = co_await weir::timeout(limit, next_bytes(conn, !parser.midway()));
      left_ = data_.view();
    }
    const bool some = !left_.empty();
    left_.remove_prefix(parser.feed(left_));
    if (parser.problem() != 0) throw Refused(parser.problem());
    co_return some;
  }
  /// Something has come that the parser was not given yet.
  [[nodiscard]] bool has_more() const { return !left_.empty(); }

  weir::TcpConnection& conn;
  RequestParser parser;

 private:
  weir::Chunk data_;
  std::string_view left_;  // of the data
};

/// One request, on its way to a backend and back.
class Exchange {
 public:
  struct Times {
    std::chrono::milliseconds client;   // for each piece of the request's body
    std::chrono::milliseconds backend;  // for the answer's head, and for each piece of its body
  };

  Exchange(Client& client, weir::TcpConnection& backend, Times times)
      : client_(client), backend_(backend), times_(times) {}

  /// Ends with the answer, be the request on its way still. Throws `Refused`, or
  /// `std::system_error`; has then `begun`, or not.
  weir::Task<> run(std::string head) {
    (void)co_await weir::when_any(pass_answer(), pass_request(std::move(head)));
  }

  /// The backend has said something.
  [[nodiscard]] bool heard() const { return heard_; }
  /// The client has a part of the answer.
  [[nodiscard]] bool begun() const { return begun_; }
  /// All was said on the backend's side, so that its connection may be used for something else …
  [[nodiscard]] bool backend_is_free() const { return backend_is_free_; }
  /// … and on the client's, which may go on.
  [[nodiscard]] bool client_is_free() const { return client_is_free_; }

 private:
  /// At its end it waits for ever: the answer is what ends the exchange.
  weir::Task<> pass_request(std::string head) {
    const Request& request = client_.parser.request();
    const Framing framing = framing_of(request);
    std::error_code broken = (co_await weir::as_tuple(backend_.send(std::move(head)))).error;
    const bool waits = request.header("expect") != nullptr && !client_.parser.whole();
    if (waits && request.minor_version > 0 && !client_.has_more())
      co_await client_.conn.send("HTTP/1.1 100 Continue\r\n\r\n");
    while (!broken) {
      std::string piece = framed(framing, client_.parser.take_body());
      const bool last = client_.parser.whole();
      if (last) piece += end_of_body(framing);
      if (!piece.empty()) {
        broken = (co_await weir::as_tuple(backend_.send(std::move(piece)))).error;
        told_ = weir::EventLoop::current().now();
      }
      request_is_through_ = last && !broken;
      if (last) break;
      auto [late, more] = co_await weir::as_tuple(client_.parse_more(times_.client));
      if (late == weir::errc::deadline) throw Refused(408);
      if (late || !more) throw std::system_error(std::make_error_code(std::errc::broken_pipe));
    }
    // Broken or not: a backend may refuse a request midway, and say so.
    co_await weir::Event().wait();
  }

  weir::Task<weir::Chunk> read_answer() {
    for (;;) {
      auto [error, data] = co_await weir::as_tuple(weir::timeout(times_.backend, backend_.read()));
      const bool busy = told_ + times_.backend > weir::EventLoop::current().now();
      if (error == weir::errc::deadline && busy) continue;  // with the request
      if (error) throw std::system_error(error, "backend");
      heard_ = heard_ || data;
      co_return std::move(data);
    }
  }

  weir::Task<> pass_answer() {
    const Request& request = client_.parser.request();
    ResponseParser parser(request.method == "HEAD", {.head = 64 << 10, .body = SIZE_MAX / 2});
    Framing framing = Framing::none;
    while (!parser.whole()) {
      const weir::Chunk data = co_await read_answer();
      if (data.is_end() && !parser.end_of_stream()) {
        throw std::system_error(std::make_error_code(std::errc::connection_reset), "backend");
      }
      std::string_view left = data.view();
      for (;;) {
        left.remove_prefix(parser.feed(left));
        if (parser.problem() != 0) throw Refused(502);
        if (!parser.whole() || !parser.is_interim()) break;
        parser.next();
      }
      if (!parser.has_head()) continue;
      std::string text;
      if (!std::exchange(begun_, true)) {
        framing = framing_of(parser.head(), parser.has_no_body(), request);
        client_is_free_ = request.keep_alive && request_is_through_ && framing != Framing::close &&
                          !client_.conn.is_draining();
        text = forwarded(parser.head(), framing, request, client_is_free_);
      }
      text += framed(framing, parser.take_body());
      if (parser.whole()) text += end_of_body(framing);
      backend_is_free_ =
          parser.whole() && parser.head().keep_alive && left.empty() && request_is_through_;
      if (!text.empty()) co_await client_.conn.send(std::move(text));
    }
  }

  Client& client_;
  weir::TcpConnection& backend_;
  Times times_;
  weir::TimePoint told_ = weir::EventLoop::current().now();  // when the backend got something last
  bool request_is_through_ = false;
  bool heard_ = false;
  bool begun_ = false;
  bool backend_is_free_ = false;
  bool client_is_free_ = false;
};

}  // namespace http
