// websocket_server --port N [--address A] [--threads T] [--engine auto|uring|epoll]
//                  [--max-message BYTES] [--high-water BYTES] [--handshake-timeout MS]
//                  [--ping-interval MS] [--origin ORIGIN] [--tls-certificate FILE --tls-key FILE]
//
// RFC 6455: messages to /echo come back, those to /chat go to everybody there, on whichever loop.
// Nobody waits for anybody: who does not read, so that its queue comes to the high mark, is
// dropped. websocket/handshake.h reads requests, websocket/frames.h takes frames out of the stream,
// websocket/room.h tells everybody.
#include <weir/weir.h>

#include <exception>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "common/arguments.h"
#include "common/tls_files.h"
#include "websocket/frames.h"
#include "websocket/handshake.h"
#include "websocket/room.h"

using namespace weir;
using namespace std::chrono_literals;
using websocket::Code;
using websocket::Opcode;

namespace {

constexpr std::size_t kLongestHead = 8192;
constexpr std::size_t kBurst = 16 << 10;  // bytes that members are given before a talker rests

struct Settings {
  std::size_t max_message;
  std::chrono::milliseconds handshake_timeout;
  std::chrono::milliseconds ping_interval;  // silence; after twice as much the connection ends
  std::string origin;                       // the one that browsers may come from; empty: any
};

/// To the end, or to what has to be said in a Close frame.
Task<std::optional<Code>> converse(TcpConnection& conn, websocket::Room* room,
                                   const Settings& settings) {
  websocket::Assembly message(settings.max_message);
  std::size_t rested = 0;
  bool asked = false;
  for (;;) {
    auto [error, frame] = co_await as_tuple(
        timeout(settings.ping_interval, websocket::read_frame(conn, message.room())));
    if (error == errc::deadline && !std::exchange(asked, true)) {
      co_await conn.send(websocket::make_frame(Opcode::ping, ""));
      continue;
    }
    if (error || !frame) co_return std::nullopt;
    asked = false;
    if (frame->problem != websocket::kNone) co_return frame->problem;
    if (frame->opcode == Opcode::close) co_return websocket::answer_to_close(frame->payload);
    if (frame->opcode == Opcode::ping) {
      co_await conn.send(websocket::make_frame(Opcode::pong, frame->payload));
    }
    if (frame->opcode >= Opcode::close) continue;

    const Code problem = message.add(std::move(*frame));
    if (problem != websocket::kNone) co_return problem;
    if (!message.whole()) continue;
    if (room == nullptr) {
      co_await conn.send(message.take());  // waits for a peer that does not read
      continue;
    }
    const std::size_t told = room->broadcast(SharedBytes(message.take()));
    if (told - rested < kBurst) continue;
    co_await sleep(1ms);  // so that a burst alone, whoever it comes from, drops nobody
    rested = told;
  }
}

/// The peer's Close, after ours.
Task<> wait_for_close(TcpConnection& conn, std::size_t most) {
  for (;;) {
    const std::optional<websocket::Frame> frame = co_await websocket::read_frame(conn, most);
    if (!frame || frame->problem != websocket::kNone || frame->opcode == Opcode::close) co_return;
  }
}

/// What the request is to be answered with; nothing if none came.
Task<std::optional<websocket::Upgrade>> read_request(TcpConnection& conn, Settings settings) {
  auto first = co_await when_any(
      conn.draining(),
      as_tuple(timeout(settings.handshake_timeout, conn.read_until("\r\n\r\n", kLongestHead))));
  if (first.index() == 0) co_return std::nullopt;
  const auto& [error, head] = std::get<1>(first);
  websocket::Upgrade upgrade = {.status = 431};
  if (error == std::errc::message_size) co_return upgrade;
  if (error || !head) co_return std::nullopt;
  upgrade = websocket::read_upgrade(head.view());
  if (upgrade.status != 101) co_return upgrade;
  if (upgrade.path != "/chat" && upgrade.path != "/echo") upgrade.status = 404;
  // Browsers let any page connect anywhere, with the user's cookies: it is for the server to ask.
  const bool foreign = !upgrade.origin.empty() && upgrade.origin != settings.origin;
  if (foreign && !settings.origin.empty()) upgrade.status = 403;
  co_return upgrade;
}

Task<> serve_client(TcpConnection conn, websocket::Room& room, const Settings& settings) {
  const auto upgrade = co_await read_request(conn, settings);
  if (!upgrade) co_return;
  const Sender sender = conn.sender();
  std::optional<websocket::Room::Member> member;
  const bool chats = upgrade->status == 101 && upgrade->path == "/chat";
  if (chats) {
    member.emplace(room, sender, websocket::answer(*upgrade));
  } else {
    co_await conn.send(websocket::answer(*upgrade));
  }
  if (upgrade->status != 101) co_return;
  auto first =
      co_await when_any(conn.draining(), converse(conn, chats ? &room : nullptr, settings));
  member.reset();  // nothing may follow a Close
  const bool drains = first.index() == 0;
  const std::optional<Code> code = drains ? websocket::kGoingAway : std::get<1>(first);
  if (!code) co_return;
  // By the same way as what others have sent, and so behind it.
  if (!sender.try_send(websocket::make_close(*code))) conn.force_close();
  if (drains) {
    (void)co_await as_tuple(timeout(5s, wait_for_close(conn, settings.max_message)));
  }
}  // the destructor sends what is queued, and lets the peer read it

}  // namespace

int main(int argc, char** argv) try {
  const Arguments arguments(argc, argv,
                            {{"max-message", "65536"},
                             {"high-water", "1048576"},
                             {"handshake-timeout", "10000"},
                             {"ping-interval", "30000"},
                             {"origin", ""}});
  const Settings settings = {.max_message = arguments.number("max-message"),
                             .handshake_timeout = arguments.milliseconds("handshake-timeout"),
                             .ping_interval = arguments.milliseconds("ping-interval"),
                             .origin = arguments.text("origin")};
  ServerOptions options = arguments.server_options("websocket");
  options.connection.water_marks.high = arguments.number("high-water");
  options.connection.water_marks.low = options.connection.water_marks.high / 4;
  options.write_timeout = 2 * settings.ping_interval;  // an echo waits for who does not read
  TlsFiles tls(arguments.text("tls-certificate"), arguments.text("tls-key"));
  options.tls = tls.context();
  websocket::Room room;
  TcpServer server(options);
  tls.reload_with(server);
  serve(server, [&room, &settings](TcpConnection conn) {
    return serve_client(std::move(conn), room, settings);
  });
} catch (const std::exception& error) {
  std::fprintf(stderr, "websocket_server: %s\n", error.what());
  return 1;
}
