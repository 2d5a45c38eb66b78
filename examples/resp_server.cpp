// resp_server --port N [--address A] [--threads T] [--engine auto|uring|epoll]
//             [--max-memory BYTES] [--command-timeout MS] [--write-timeout MS]
//
// A key-value server in memory that speaks RESP2, the protocol of Redis: redis-cli and the client
// libraries talk to it. resp/parser.h takes commands out of the stream, resp/commands.h executes
// them, and resp/reply.h makes an answer piece by piece.
#include <weir/weir.h>

#include <exception>
#include <string>

#include "common/arguments.h"
#include "common/next_bytes.h"
#include "common/tls_files.h"
#include "resp/commands.h"
#include "resp/parser.h"

using namespace weir;

namespace {

/// What a client may leave unread, beside a piece of an answer.
constexpr WaterMarks kMarks = {.high = 256 << 10, .low = 64 << 10};

/// The next command that is there, and false once the stream makes no sense: the reply says why.
bool next_command(resp::Parser& parser, const resp::Parser::Command*& command, resp::Reply& reply) {
  try {
    command = parser.next();
    return true;
  } catch (const resp::ProtocolError& error) {
    reply.add_error(std::string("ERR Protocol error: ") + error.what());
    return false;
  }
}

bool is_quit(const resp::Parser::Command& command) {
  return command[0] == "QUIT" || command[0] == "quit";
}

/// `limit` is for a whole command, from its first byte on.
Task<> serve_client(TcpConnection conn, resp::Database& database, std::chrono::milliseconds limit) {
  EventLoop& loop = EventLoop::current();
  resp::Parser parser;
  resp::Reply reply;
  TimePoint deadline = {};  // of a command of which a part has come
  for (bool open = true; open;) {
    const Duration wait = parser.midway() ? deadline - loop.now() : Duration::max();
    auto [error, data] = co_await as_tuple(timeout(wait, next_bytes(conn, !parser.midway())));
    if (error || !data) co_return;  // too slow, broken, or at its end

    bool begun = !parser.midway();
    parser.feed(data.view());
    data = Chunk();  // the loop's again before anybody waits
    for (const resp::Parser::Command* command = nullptr; open;) {
      open = next_command(parser, command, reply);
      if (!open || command == nullptr) break;
      begun = true;
      if (is_quit(*command)) {
        reply.add_simple("OK");
        open = false;
      } else {
        database.execute(*command, loop.now(), reply);
      }
      // A piece at a time: more is made of an answer when the last piece is below the mark.
      for (bool more = true; more;) {
        more = reply.fill();
        if (reply.text.size() < resp::Reply::kPiece) break;
        auto [broken, sent] = co_await as_tuple(conn.send(std::move(reply.text)));
        if (broken) co_return;
        reply.text.clear();
      }
    }
    if (begun && parser.midway()) deadline = loop.now() + limit;
    if (!reply.text.empty()) {
      auto [broken, sent] = co_await as_tuple(conn.send(reply.text));
      if (broken) co_return;
      reply.text.clear();
    }
  }
}

}  // namespace

int main(int argc, char** argv) try {
  const Arguments arguments(
      argc, argv,
      {{"max-memory", "268435456"}, {"command-timeout", "30000"}, {"write-timeout", "30000"}});
  resp::Database database(arguments.number("max-memory"));
  const auto limit = arguments.milliseconds("command-timeout");
  ServerOptions options = arguments.server_options("resp");
  options.connection.water_marks = kMarks;
  options.write_timeout = arguments.milliseconds("write-timeout");  // for those who do not read
  TlsFiles tls(arguments.text("tls-certificate"), arguments.text("tls-key"));
  options.tls = tls.context();
  TcpServer server(options);
  tls.reload_with(server);
  serve(server, [&database, limit](TcpConnection conn) {
    return serve_client(std::move(conn), database, limit);
  });
} catch (const std::exception& error) {
  std::fprintf(stderr, "resp_server: %s\n", error.what());
  return 1;
}
