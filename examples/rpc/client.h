#pragma once

#include <weir/weir.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <system_error>
#include <utility>

#include "frame.h"

namespace rpc {

/// Any number of calls at a time over one connection, which is made again when it breaks. On one
/// loop; outlives its calls.
class Client {
 public:
  explicit Client(weir::ClientOptions options) : tcp_(std::move(options)) {
    connected_.spawn(tcp_.run([this](weir::TcpConnection& conn) { return take_answers(conn); }));
  }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  /// `co_await call(request, limit)` gives the answer. Without a connection it waits for one.
  /// Throws `weir::errc::deadline` when the time is over, and `std::errc::connection_reset` when
  /// the connection broke under it: after either the server may have done it or not. Where
  /// connecting fails for good (`TcpClient::run`) what waits for that gets `operation_canceled`,
  /// and all later calls their deadline. Dropping it forgets the answer.
  [[nodiscard]] weir::Task<std::string> call(std::string request, std::chrono::nanoseconds limit) {
    co_return co_await weir::timeout(limit, ask(std::move(request)));
  }

  [[nodiscard]] std::size_t in_flight() const { return calls_.size(); }
  [[nodiscard]] std::uint64_t connects() const { return tcp_.connects(); }

 private:
  /// One that waits for its answer. Whatever ends it, nobody finds it any more.
  struct Call {
    explicit Call(Client& of) : client(of), id(++of.last_id_) { client.calls_.emplace(id, this); }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;
    ~Call() { client.calls_.erase(id); }

    Client& client;
    const std::uint64_t id;
    std::string answer = {};
    bool answered = false;
    weir::Event ended = {};
  };

  weir::Task<std::string> ask(std::string request) {
    weir::TcpConnection& conn = co_await tcp_.connection();
    Call call(*this);
    const auto sent = co_await weir::as_tuple(conn.send(to_bytes(call.id, request)));
    if (!sent.error) co_await call.ended.wait();
    if (!call.answered) {
      throw std::system_error(std::make_error_code(std::errc::connection_reset),
                              "rpc: the connection broke before the answer came");
    }
    co_return std::move(call.answer);
  }

  /// The session of a connection. When it ends, in whichever way, so do the calls under way.
  weir::Task<> take_answers(weir::TcpConnection& conn) {
    struct Ending {
      std::map<std::uint64_t, Call*>& calls;
      ~Ending() {
        for (const auto& [id, call] : calls) call->ended.set();
      }
    };
    const Ending ending{calls_};
    while (auto frame = co_await read_frame(conn)) {
      const auto found = calls_.find(frame->id);
      if (found == calls_.end()) continue;  // nobody wants it any more
      Call& call = *found->second;
      call.answer = std::move(frame->body);
      call.answered = true;
      call.ended.set();
    }
  }

  weir::TcpClient tcp_;
  std::map<std::uint64_t, Call*> calls_;
  std::uint64_t last_id_ = 0;
  weir::TaskGroup connected_;  // last: goes first
};

}  // namespace rpc
