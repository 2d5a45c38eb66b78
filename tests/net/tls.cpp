#include "../support/tls.h"

#include <doctest/doctest.h>

#include <cstddef>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "../support/net_server.h"

using namespace weir;
using namespace weir::test;

TEST_CASE("bytes of every size come back over TLS, both ways") {
  on_each_engine([]() -> Task<> {
    Linked pair = co_await tls_pair(server_context(), client_context());
    const auto serve = [](TcpConnection conn) -> Task<> { co_await echo(std::move(conn)); };
    TaskGroup group;
    group.spawn(serve(std::move(pair.b)));
    for (const std::size_t size :
         {1U, 2U, 511U, 512U, 513U, 16383U, 16384U, 16385U, 100'000U, 1U << 20}) {
      CAPTURE(size);
      const std::string sent = pattern(size, size);
      const auto send = [](TcpConnection& conn, std::string bytes) -> Task<> {
        co_await conn.send(std::move(bytes));
      };
      TaskGroup sending;
      sending.spawn(send(pair.a, sent));
      const Chunk got = co_await pair.a.read_exactly(size);
      CHECK(got.view() == sent);
      co_await sending.join();
    }
    co_await pair.a.shutdown();
    const Chunk end = co_await pair.a.read();
    CHECK(end.is_end());
    co_await group.join();
  });
}

TEST_CASE("shared bytes go over TLS, by the connection and by its senders") {
  on_each_engine([]() -> Task<> {
    Linked pair = co_await tls_pair(server_context(), client_context());
    const std::string text = pattern(50'000, 1);
    const SharedBytes bytes(text);
    const auto send = [](TcpConnection& conn, SharedBytes what) -> Task<> {
      co_await conn.send(what);
      CHECK(conn.sender().try_send(what));
      co_await conn.sender().send(what);
    };
    for (TcpConnection* from : {&pair.a, &pair.b}) {
      TcpConnection& to = from == &pair.a ? pair.b : pair.a;
      TaskGroup sending;
      sending.spawn(send(*from, bytes));
      const Chunk got = co_await to.read_exactly(3 * text.size());
      CHECK(got.view() == text + text + text);
      co_await sending.join();
    }
  });
}

TEST_CASE("a server and a client of the same program speak TLS with one word each") {
  on_each_engine([]() -> Task<> {
    const TlsContext secure = server_context();
    const TlsContext trusting = client_context();
    TcpServer server(EventLoop::current(), {.address = loopback(), .tls = &secure});
    std::string version;
    server.start([&](TcpConnection conn) -> Task<> {
      version = tls_info(conn)->version;
      co_await echo(std::move(conn));
    });
    ConnectOptions options;
    options.tls = &trusting;
    TcpConnection conn = co_await connect(server.address().to_string(), options);
    co_await conn.send("hello");
    const Chunk got = co_await conn.read_exactly(5);
    CHECK(got.view() == "hello");
    const auto info = tls_info(conn);
    REQUIRE(info);
    CHECK(info->version == "TLSv1.3");
    CHECK(version == "TLSv1.3");
    CHECK(info->peer_subject == "CN=localhost");
    CHECK(info->peer_names.size() == 3);
    CHECK(!info->cipher.empty());
    co_await conn.shutdown();
    const Chunk end = co_await conn.read();
    CHECK(end.is_end());
    CHECK(server.metrics().handshakes == 1);
    CHECK(server.metrics().bytes_in == 5);  // the plain ones
    CHECK(server.metrics().bytes_out == 5);
    conn.close();
    (void)co_await server.drain(10s);
  });
}

TEST_CASE("a client keeps itself connected over TLS, and verifies the name") {
  on_each_engine([]() -> Task<> {
    const TlsContext secure = server_context();
    const TlsContext trusting = client_context();
    TcpServer server(EventLoop::current(), {.address = loopback(), .tls = &secure});
    server.start(&echo);
    TcpClient client(
        {.address = server.address(), .connector = {.initial_delay = 1ms}, .tls = &trusting});
    int sessions = 0;
    co_await client.run([&](TcpConnection& conn) -> Task<> {
      co_await conn.send("ping");
      const Chunk got = co_await conn.read_exactly(4);
      CHECK(got.view() == "ping");
      if (++sessions == 3) client.stop();
    });
    CHECK(sessions == 3);
    (void)co_await server.drain(10s);
  });
}

TEST_CASE("a certificate for another name is refused, by name") {
  on_each_engine([]() -> Task<> {
    const TlsContext secure = server_context();
    const TlsContext trusting = client_context();
    TcpServer server(EventLoop::current(), {.address = loopback(), .tls = &secure});
    server.start(&echo);
    ConnectOptions options;
    options.tls = &trusting;
    options.server_name = "bank.example";
    std::string text;
    std::error_code code;
    try {
      (void)co_await connect(server.address().to_string(), options);
    } catch (const std::system_error& error) {
      text = error.what();
      code = error.code();
    }
    INFO(text);
    CHECK(code.category() == tls_category());
    CHECK(code == std::errc::protocol_error);
    CHECK(text.find("bank.example") != std::string::npos);
    CHECK(text.find("localhost") != std::string::npos);
    CHECK(text.find("ostname mismatch") != std::string::npos);
    co_await turn_until([&] { return server.metrics().failed_handshakes == 1; });
    CHECK(server.handler_failures() == 0);
    (void)co_await server.drain(10s);
  });
}

TEST_CASE("a part of a file goes out over TLS in call order with the sends") {
  on_each_engine([]() -> Task<> {
    constexpr std::size_t kSize = 300'000;
    const Directory directory;
    const std::string name = directory.file("content");
    const std::string content = pattern(kSize);
    std::FILE* file = std::fopen(name.c_str(), "w+");
    REQUIRE(std::fwrite(content.data(), 1, content.size(), file) == kSize);
    std::fflush(file);
    Linked pair = co_await tls_pair(server_context(), client_context());
    const auto send = [](TcpConnection& conn, int fd) -> Task<> {
      co_await conn.send("head");
      co_await conn.send_file(fd, 10, kSize - 20);
      co_await conn.send("tail");
      co_await conn.shutdown();
    };
    TaskGroup group;
    group.spawn(send(pair.a, ::fileno(file)));
    const Chunk got = co_await pair.b.read_exactly(kSize - 12);
    CHECK(got.view() == "head" + content.substr(10, kSize - 20) + "tail");
    const Chunk end = co_await pair.b.read();
    CHECK(end.is_end());
    co_await group.join();
    std::fclose(file);
  });
}

TEST_CASE("what is queued in one turn leaves as one record") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    const TlsContext secure = server_context();
    TlsPeer client(std::move(peer), false);
    const auto shake = [](TcpConnection& c, const TlsContext& context) -> Task<> {
      co_await start_tls(c, context);
    };
    TaskGroup group;
    group.spawn(shake(conn, secure));
    const auto agree = [&] { client.shake_hands(); };
    co_await in_thread(agree);
    co_await group.join();
    // Tickets come first, in records of their own.
    co_await conn.send("x");
    const auto first = [&] { return client.receive_exactly(1); };
    (void)co_await in_thread(first);
    for (int i = 0; i < 16; ++i) co_await conn.send("answer");
    const auto receive = [&] { return client.peer().receive_exactly(16 * 6 + 5 + 17); };
    const std::string record = co_await in_thread(receive);
    CHECK(record.front() == 23);  // application data
    CHECK((static_cast<unsigned char>(record[3]) << 8 | static_cast<unsigned char>(record[4])) ==
          16 * 6 + 17);
  });
}

TEST_CASE("marks, a sender of another thread and reads until a delimiter hold over TLS") {
  on_each_engine([]() -> Task<> {
    Linked pair =
        co_await tls_pair(server_context(), client_context(),
                          {.water_marks = {.high = 64 << 10, .low = 16 << 10}}, {}, 8 << 10);
    const auto flood = [](TcpConnection& conn) -> Task<> {
      for (int i = 0; i < 64; ++i) {
        co_await conn.send(pattern(32 << 10, 1, static_cast<std::uint64_t>(i) * (32 << 10)));
        CHECK(conn.pending_bytes() < (64 << 10) + (32 << 10));
      }
      co_await conn.send("\r\n");
    };
    TaskGroup group;
    group.spawn(flood(pair.a));
    std::uint64_t offset = 0;
    while (offset < 64 * (32 << 10)) {
      const Chunk chunk = co_await pair.b.read(64 * (32 << 10) - offset);
      CHECK(matching(chunk.view(), 1, offset) == chunk.size());
      offset += chunk.size();
    }
    const Chunk line = co_await pair.b.read_until("\r\n", 100);
    CHECK(line.size() == 2);
    co_await group.join();
    Sender sender = pair.b.sender();
    const auto work = [&] { CHECK(sender.try_send("from afar")); };
    co_await in_thread(work);
    const Chunk got = co_await pair.a.read_exactly(9);
    CHECK(got.view() == "from afar");
  });
}

TEST_CASE("over TLS what is queued falls as the peer reads, not when all of it has gone") {
  on_each_engine([]() -> Task<> {
    constexpr std::size_t kSize = 240'000;  // encrypted at once
    Linked pair = co_await tls_pair(server_context(), client_context(), {}, {}, 8 << 10);
    co_await pair.a.send(pattern(kSize));
    std::size_t lowest = pair.a.pending_bytes();
    int falls = 0;
    std::size_t got = 0;
    while (got < kSize) {
      const Chunk chunk = co_await pair.b.read(kSize - got);
      CHECK(matching(chunk.view(), 1, got) == chunk.size());
      got += chunk.size();
      const std::size_t pending = pair.a.pending_bytes();
      CHECK(pending <= lowest);
      falls += pending < lowest ? 1 : 0;
      lowest = pending;
    }
    // On io_uring a send is over when all of it has gone, as without TLS.
    CHECK((falls > 4 || EventLoop::current().engine_name() == "io_uring"));
    co_await pair.a.flush();
    CHECK(pair.a.pending_bytes() == 0);
  });
}
