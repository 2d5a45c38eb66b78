// What a client may begin with, and what it may ask for later, that no other client does.
#include <weir/net/handshake.h>
#include <weir/net/stream/inbox.h>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
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

constexpr std::size_t kHeader = 5;  // of a record

/// The records' contents in records of `size` bytes.
std::string cut_up(std::string_view records, std::size_t size) {
  std::string cut;
  for (std::string_view rest = records.substr(kHeader); !rest.empty();) {
    const std::string_view part = rest.substr(0, size);
    cut += records.substr(0, 3);
    cut += static_cast<char>(part.size() >> 8);
    cut += static_cast<char>(part.size() & 0xff);
    cut += part;
    rest.remove_prefix(part.size());
  }
  return cut;
}

std::string hello_of(TlsPeer& peer) {
  ::SSL_do_handshake(peer.ssl());
  return peer.take_output();
}

/// A handshake message of that length, in as many records as it takes.
std::string message_of(std::size_t size) {
  std::string message = {'\x01', static_cast<char>(size >> 16), static_cast<char>(size >> 8 & 0xff),
                         static_cast<char>(size & 0xff)};
  message += std::string(size, '\x03');
  return cut_up("\x16\x03\x01" + std::string(2, '\0') + message, 16384);
}

/// One exchange over a server that others may have been at.
void check_served(const SocketAddress& address) {
  TlsPeer peer(Peer::connect(address), false);
  peer.shake_hands();
  peer.send("hello");
  CHECK(peer.receive_exactly(5) == "hello");
}

struct NobodyAsks final : weir::detail::Inbox::Source {
  void input_wanted() noexcept override {}
};

}  // namespace

TEST_CASE("a handshake that nobody works on takes in 64 KiB, and then wants no more") {
  on_each_engine([]() -> Task<> {
    const TlsContext secure = server_context();
    const std::unique_ptr<weir::detail::Handshake> handshake = secure.factory()->make({});
    NobodyAsks source;
    weir::detail::Inbox inbox(source, 1);
    for (int i = 0; i < 16; ++i) {
      CHECK_FALSE(handshake->full());
      weir::detail::BufferRef buffer = weir::detail::make_buffer(4096);
      const std::byte* data = buffer->data();
      CHECK(handshake->receive(std::move(buffer), data, 4096, inbox) == 0);
    }
    CHECK(handshake->full());
    co_return;
  });
}

TEST_CASE("a ClientHello in many records is a ClientHello") {
  on_each_engine([]() -> Task<> {
    const TlsContext secure = server_context();
    TcpServer server(EventLoop::current(), {.address = loopback(), .tls = &secure});
    server.start(&echo);
    const auto talk = [&] {
      for (const std::size_t size : {1U, 4U, 100U}) {
        CAPTURE(size);
        TlsPeer peer(Peer::connect(server.address()), false);
        peer.peer().send(cut_up(hello_of(peer), size));
        peer.shake_hands();
        peer.send("hello");
        CHECK(peer.receive_exactly(5) == "hello");
      }
    };
    co_await in_thread(talk);
    (void)co_await server.drain(10s);
  });
}

TEST_CASE("a ClientHello that is larger than any is refused before it is all there") {
  on_each_engine([]() -> Task<> {
    const TlsContext secure = server_context();
    TcpServer server(EventLoop::current(), {.address = loopback(), .tls = &secure});
    server.start(&echo);
    const auto talk = [&] {
      Peer large = Peer::connect(server.address());
      large.send(message_of((1 << 24) - 1).substr(0, 20'000));
      CHECK(large.receive_exactly(1) == "\x15");  // an alert
      Peer garbage = Peer::connect(server.address());
      garbage.send(message_of(100'000));  // as large as it may be, and nothing in it is right
      CHECK(garbage.receive_exactly(1) == "\x15");
      check_served(server.address());
    };
    co_await in_thread(talk);
    CHECK(server.metrics().failed_handshakes == 2);
    (void)co_await server.drain(10s);
  });
}

TEST_CASE("who asks to negotiate anew is told that there is none of that") {
  on_each_engine([]() -> Task<> {
    const TlsContext secure = server_context();
    TcpServer server(EventLoop::current(), {.address = loopback(), .tls = &secure});
    server.start(&echo);
    std::string reason;
    const auto talk = [&] {
      TlsPeer peer(Peer::connect(server.address()), false, [](SSL_CTX* context) {
        ::SSL_CTX_set_max_proto_version(context, TLS1_2_VERSION);
      });
      peer.shake_hands();
      peer.send("hello");
      CHECK(peer.receive_exactly(5) == "hello");
      ::SSL_renegotiate(peer.ssl());
      reason = text_of<std::runtime_error>([&] { peer.shake_hands(); });
      check_served(server.address());
    };
    co_await in_thread(talk);
    CHECK(reason == "no renegotiation");
    (void)co_await server.drain(10s);
  });
}

TEST_CASE("a client that speaks TLS to a plain port is named in the log, once") {
  on_each_kernel_engine("its log is the world's history", []() -> Task<> {
    const CapturedLog log;
    ServerOptions options;
    options.address = loopback();
    options.name = "plain";
    TcpServer server(EventLoop::current(), options);
    server.start(&echo);
    std::string name;
    const auto talk = [&] {
      TlsPeer peer(Peer::connect(server.address()), false);
      const std::string hello = hello_of(peer);
      peer.peer().send(hello);
      CHECK(peer.peer().receive_exactly(hello.size()) == hello);
      peer.peer().send(hello);
      CHECK(peer.peer().receive_exactly(hello.size()) == hello);
      name = "plain-" + peer.peer().local_address().to_string();
      Peer other = Peer::connect(server.address());
      CHECK(echoes(other));
    };
    co_await in_thread(talk);
    CHECK(log.count("the client begins with TLS, and this server has none") == 1);
    CHECK(log.count(name) == 1);
    (void)co_await server.drain(10s);
  });
}
