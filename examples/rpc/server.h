#pragma once

#include <weir/weir.h>

#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "frame.h"

namespace rpc {

inline constexpr std::size_t kMostAtOnce = 1000;  // calls of one connection

/// Answers the calls of a connection by `serve`, a callable that gives a `Task<std::string>` for a
/// request: all at the same time, each as soon as it is done. With too many under way it reads no
/// further. A drain, and a client that has ended its side, get the answers to what was asked. A
/// call that fails breaks its connection. What is under way of one is 1,000 bodies at the most.
template <class Serve>
weir::Task<> answer_calls(weir::TcpConnection conn, Serve serve) {
  const auto answer = [&conn, &serve](Frame call, weir::Semaphore::Permit) -> weir::Task<> {
    std::string message;
    try {
      const std::string text = co_await serve(std::move(call.body));
      message = to_bytes(call.id, text);
    } catch (...) {
      conn.force_close();  // its caller hears of it now, and calls again if it likes
      throw;
    }
    co_await conn.send(std::move(message));
  };
  weir::Semaphore room(kMostAtOnce);
  weir::TaskGroup calls;
  for (;;) {
    auto permit = co_await room.acquire();
    auto next = co_await weir::when_any(conn.draining(), read_frame(conn));
    if (next.index() == 0 || !std::get<1>(next)) break;
    calls.spawn(answer(std::move(*std::get<1>(next)), std::move(permit)));
  }
  co_await calls.join();
}

}  // namespace rpc
