#include <doctest/doctest.h>

#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "../support/captured_log.h"
#include "../support/net_server.h"
#include "../support/tls.h"

using namespace weir;
using namespace weir::test;

namespace {

/// What a read to the end tells: the bytes, then "end" or the error's name.
Task<std::string> read_all(TcpConnection& conn) {
  std::string told;
  for (;;) {
    auto [error, chunk] = co_await as_tuple(conn.read());
    if (error == std::errc::connection_aborted) co_return told + "|aborted";
    if (error == std::errc::connection_reset) co_return told + "|reset";
    if (error == std::errc::protocol_error) co_return told + "|" + error.message();
    if (error) co_return told + "|" + error.message();
    if (chunk.is_end()) co_return told + "|end";
    told += chunk.view();
  }
}

/// weir as the server of an OpenSSL client; both have agreed.
struct Scene {
  TcpConnection conn;
  std::unique_ptr<TlsPeer> peer;
};

Task<Scene> scene(TlsServerOptions options = Credentials::instance().server(),
                  std::chrono::milliseconds linger = 1min) {
  auto [conn, plain] = connect_pair({.linger = linger});
  const TlsContext context = TlsContext::server(std::move(options));
  Scene made{std::move(conn), std::make_unique<TlsPeer>(std::move(plain), false)};
  const auto upgrade = [](TcpConnection& c, const TlsContext& with) -> Task<> {
    co_await start_tls(c, with);
  };
  TaskGroup group;
  group.spawn(upgrade(made.conn, context));
  const auto agree = [&] { made.peer->shake_hands(); };
  co_await in_thread(agree);
  co_await group.join();
  co_return made;
}

}  // namespace

// The peer ends first; what the reads of this side tell, with data before the end and without:
//
//     close_notify, then FIN      the data, then the end
//     close_notify alone          the data, then the end; sends still arrive
//     FIN alone                   the data, then connection_aborted; with allow_truncation the end
//     RST                         connection_reset
//     an alert                    its reason
TEST_CASE("how the peer ended is told: close_notify, a FIN without it, a reset, an alert") {
  on_each_engine([]() -> Task<> {
    for (const std::string data : {"", "data"}) {
      CAPTURE(data);
      {
        Scene s = co_await scene();
        const auto end = [&] {
          s.peer->send(data);
          s.peer->say_end();
          s.peer->peer().shutdown_send();
        };
        co_await in_thread(end);
        const std::string told = co_await read_all(s.conn);
        CHECK(told == data + "|end");
      }
      {
        Scene s = co_await scene();
        const auto end = [&] {
          s.peer->send(data);
          s.peer->say_end();
        };
        co_await in_thread(end);
        const std::string told = co_await read_all(s.conn);
        CHECK(told == data + "|end");
        co_await s.conn.send("still there");
        const auto receive = [&] { return s.peer->receive_exactly(11); };
        const std::string got = co_await in_thread(receive);
        CHECK(got == "still there");
      }
      {
        Scene s = co_await scene();
        const auto end = [&] {
          s.peer->send(data);
          s.peer->peer().shutdown_send();
        };
        co_await in_thread(end);
        const std::string told = co_await read_all(s.conn);
        CHECK(told == data + "|aborted");
      }
      {
        TlsServerOptions lenient = Credentials::instance().server();
        lenient.allow_truncation = true;
        Scene s = co_await scene(std::move(lenient));
        const auto end = [&] {
          s.peer->send(data);
          s.peer->peer().shutdown_send();
        };
        co_await in_thread(end);
        const std::string told = co_await read_all(s.conn);
        CHECK(told == data + "|end");
      }
    }
    {
      Scene s = co_await scene();
      const auto end = [&] { s.peer->peer().reset(); };
      co_await in_thread(end);
      const std::string told = co_await read_all(s.conn);
      CHECK(told == "|reset");
    }
    {
      Scene s = co_await scene();
      // A whole record, but of nobody who has the keys.
      const std::string forged = std::string("\x17\x03\x03\x00\x20", 5) + std::string(32, 'x');
      const auto end = [&] { s.peer->peer().send(forged); };
      co_await in_thread(end);
      const std::string told = co_await read_all(s.conn);
      INFO(told);
      CHECK(told.find("bad record mac") != std::string::npos);
      const auto [error, nothing] = co_await as_tuple(s.conn.send("x"));
      CHECK(error == std::errc::protocol_error);
      // The peer learns why, even though nobody waits for it here.
      s.conn.close();
      std::string reason;
      const auto hear = [&] {
        try {
          (void)s.peer->receive_exactly(1);
        } catch (const std::runtime_error& failure) {
          reason = failure.what();
        }
      };
      co_await in_thread(hear);
      CHECK(reason.find("alert") != std::string::npos);
    }
  });
}

TEST_CASE("shutdown says close_notify, then FIN, and reading goes on") {
  on_each_engine([]() -> Task<> {
    Scene s = co_await scene();
    co_await s.conn.send("bye");
    co_await s.conn.shutdown();
    std::string got;
    const auto hear = [&] {
      const bool clean = s.peer->ends(&got);
      s.peer->send("one more thing");
      s.peer->say_end();
      s.peer->peer().shutdown_send();
      return clean;
    };
    const bool clean = co_await in_thread(hear);
    CHECK(clean);
    CHECK(got == "bye");
    const std::string told = co_await read_all(s.conn);
    CHECK(told == "one more thing|end");
    co_await turn_until([&] { return s.conn.state() == ConnectionState::disconnected; });
  });
}

TEST_CASE("a dropped connection ends with close_notify behind what was sent") {
  on_each_engine([]() -> Task<> {
    Scene s = co_await scene();
    co_await s.conn.send(pattern(50'000));
    s.conn = TcpConnection();
    std::string got;
    const auto hear = [&] { return s.peer->ends(&got); };
    const bool clean = co_await in_thread(hear);
    CHECK(clean);
    CHECK(matching(got, 1, 0) == 50'000);
  });
}

TEST_CASE("a forced close is a reset, and no end that could be believed") {
  on_each_engine([]() -> Task<> {
    Scene s = co_await scene();
    co_await s.conn.send("part of it");
    s.conn.force_close();
    const auto hear = [&] {
      try {
        return s.peer->ends();
      } catch (const std::system_error&) {
        return false;
      }
    };
    const bool clean = co_await in_thread(hear);
    CHECK_FALSE(clean);
  });
}

TEST_CASE("a close waits for a peer that says nothing no longer than linger") {
  on_each_engine([]() -> Task<> {
    TlsServerOptions options = Credentials::instance().server();
    Scene s = co_await scene(std::move(options), 200ms);
    const TimePoint before = time_now();
    s.conn.close();
    co_await turn_until([&] { return s.conn.state() == ConnectionState::disconnected; });
    CHECK(time_now() - before >= 200ms);
  });
}

TEST_CASE("whoever is cut off by a deadline of the server hears no close_notify") {
  on_each_engine([]() -> Task<> {
    const TlsContext secure = server_context();
    TcpServer server(EventLoop::current(),
                     {.address = loopback(), .idle_timeout = 100ms, .tls = &secure});
    std::string told;
    server.start([&](TcpConnection conn) -> Task<> {
      for (int i = 0; i < 100; ++i) {
        const auto [error, nothing] = co_await as_tuple(conn.send(pattern(1 << 20)));
        if (error) break;
      }
      told = co_await read_all(conn);
    });
    auto peer = std::make_unique<TlsPeer>(Peer::connect(server.address()), false);
    const auto hear = [&] {
      peer->shake_hands();
      // It reads nothing until it is over.
      while (server.connection_count() > 0) yield_thread();
      try {
        return peer->ends();
      } catch (const std::system_error&) {
        return false;
      }
    };
    const bool clean = co_await in_thread(hear);
    CHECK_FALSE(clean);
    (void)co_await server.drain(10s);
  });
}

TEST_CASE("an exception that leaves a handler is no end that could be believed") {
  on_each_engine([]() -> Task<> {
    const CapturedLog log;
    const TlsContext secure = server_context();
    TcpServer server(EventLoop::current(), {.address = loopback(), .tls = &secure});
    server.start([](TcpConnection conn) -> Task<> {
      co_await conn.send("part of it");
      throw std::runtime_error("a fault of the handler's own");
    });
    const auto hear = [&] {
      TlsPeer peer(Peer::connect(server.address()), false);
      try {
        peer.shake_hands();
        return peer.ends();
      } catch (const std::system_error&) {
        return false;
      }
    };
    const bool clean = co_await in_thread(hear);
    CHECK_FALSE(clean);
    co_await turn_until([&] { return server.handler_failures() == 1; });
    (void)co_await server.drain(10s);
  });
}

TEST_CASE("what comes behind the handshake in one burst is read, whatever follows it") {
  on_each_engine([]() -> Task<> {
    for (const bool garbage : {true, false}) {
      CAPTURE(garbage);
      auto [conn, plain] = connect_pair({.linger = 1min});
      const auto peer = std::make_unique<TlsPeer>(std::move(plain), false);
      const TlsContext context = server_context();
      const auto serve = [](TcpConnection& c, const TlsContext& with) -> Task<std::string> {
        co_await start_tls(c, with);
        std::string told = co_await read_all(c);
        co_return told;
      };
      std::string told;
      const auto hear = [&]() -> Task<> { told = co_await serve(conn, context); };
      TaskGroup group;
      group.spawn(hear());
      const auto burst = [&] {
        while (::SSL_do_handshake(peer->ssl()) != 1) {
          peer->flush();
          if (!peer->fill()) return;
        }
        std::string all = peer->sealed("a whole request");  // behind the handshake's last flight
        if (garbage) all += "this is no record at all";
        peer->peer().send(all);
        peer->peer().shutdown_send();
      };
      co_await in_thread(burst);
      co_await group.join();
      INFO(told);
      CHECK(told.starts_with("a whole request|"));
      CHECK(told.ends_with("|aborted") != garbage);
    }
  });
}
