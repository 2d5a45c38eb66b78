#include <weir/net/tls/factory.h>
#include <weir/net/tls/ticket_keys.h>

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>

#include "../support/child.h"
#include "../support/emulated.h"
#include "../support/net_server.h"
#include "../support/tls.h"

using namespace weir;
using namespace weir::test;
using weir::detail::TicketKey;
using weir::detail::TicketKeys;

namespace {

std::string_view name_in(const TicketKey& key) {
  return {reinterpret_cast<const char*>(key.name), sizeof(key.name)};
}

std::string bytes_of(const TicketKey& key) {
  return {reinterpret_cast<const char*>(&key), sizeof(key)};
}

/// Some connections, one after the other, each with an exchange: how many of them were resumed.
Task<int> resumed_of(int count, SocketAddress address, TlsContext client) {
  int resumed = 0;
  for (int i = 0; i < count; ++i) {
    ConnectOptions options;
    options.tls = &client;
    TcpConnection conn = co_await connect(address.to_string(), options);
    co_await conn.send("hello");
    const Chunk got = co_await conn.read_exactly(5);
    CHECK(got.view() == "hello");
    resumed += tls_info(conn)->resumed ? 1 : 0;
    co_await conn.shutdown();
    const Chunk end = co_await conn.read();
    CHECK(end.is_end());
  }
  co_return resumed;
}

std::string file_with(const Directory& directory, std::string_view name, std::string_view bytes) {
  const std::string path = directory.file(name);
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

}  // namespace

TEST_CASE("a client's context keeps 256 sessions, of all servers") {
  weir::detail::TlsFactory factory(Credentials::instance().client());
  for (int i = 100; i < 100 + 257; ++i) {
    factory.keep_session(std::to_string(i), weir::detail::SessionPointer(::SSL_SESSION_new()));
  }
  CHECK(factory.take_session("100") == nullptr);  // made room for the last
  CHECK(factory.take_session("101") != nullptr);
  CHECK(factory.take_session("356") != nullptr);
}

TEST_CASE("a ticket key is followed by another, and taken as long as its tickets are good") {
  const TimePoint start{1000h};
  TicketKeys keys(start);
  const TicketKey first = keys.newest(start);
  CHECK(name_in(keys.newest(start + 119min)) == name_in(first));
  CHECK(keys.find(first.name, start + 119min)->newest);
  const TicketKey second = keys.newest(start + 2h);
  CHECK(name_in(second) != name_in(first));
  REQUIRE(keys.find(first.name, start + 239min));
  CHECK_FALSE(keys.find(first.name, start + 239min)->newest);
  CHECK(bytes_of(keys.find(first.name, start + 239min)->key) == bytes_of(first));
  CHECK(keys.find(second.name, start + 239min)->newest);
  CHECK_FALSE(keys.find(first.name, start + 4h));
  // With nobody there in the meantime no key is older than it may be.
  CHECK(keys.find(second.name, start + 4h));
  CHECK_FALSE(keys.find(second.name, start + 100h));
}

TEST_CASE("a successor goes on with its predecessor's ticket keys, and with their ages") {
  const TimePoint start{1000h};
  TicketKeys before(start);
  const TicketKey first = before.newest(start);
  const TicketKey second = before.newest(start + 2h);
  const TimePoint elsewhere{5h};  // clocks of two processes need not agree
  TicketKeys after(elsewhere);
  const TicketKey own = after.newest(elsewhere);
  after.inherit("what it does not know", elsewhere);
  CHECK(name_in(after.newest(elsewhere)) == name_in(own));
  after.inherit(before.secrets(start + 3h), elsewhere);
  CHECK(bytes_of(after.newest(elsewhere)) == bytes_of(second));
  CHECK(after.find(first.name, elsewhere));
  CHECK_FALSE(after.find(own.name, elsewhere));
  CHECK(name_in(after.newest(elsewhere + 59min)) == name_in(second));
  CHECK(name_in(after.newest(elsewhere + 1h)) != name_in(second));
  CHECK(after.find(second.name, elsewhere + 1h));
}

TEST_CASE(
    "a key that servers share stays until they share another, and goes before inherited ones") {
  const TimePoint start{1000h};
  TicketKeys keys(start);
  const std::string shared = pattern(weir::detail::kTicketKey, 1);
  const std::string other = pattern(weir::detail::kTicketKey, 2);
  const auto use = [&keys](const std::string& key, TimePoint now) {
    keys.use({reinterpret_cast<const unsigned char*>(key.data()), key.size()}, now);
  };
  use(shared, start);
  CHECK(bytes_of(keys.newest(start + 1000h)) == shared);
  use(other, start + 1000h);
  CHECK(bytes_of(keys.newest(start + 1000h)) == other);
  const auto* name = reinterpret_cast<const unsigned char*>(shared.data());
  REQUIRE(keys.find(name, start + 1001h));
  CHECK_FALSE(keys.find(name, start + 1001h)->newest);
  CHECK_FALSE(keys.find(name, start + 1002h));
  TicketKeys predecessor(start);
  keys.inherit(predecessor.secrets(start), start + 1003h);
  CHECK(bytes_of(keys.newest(start + 1003h)) == other);
}

TEST_CASE("servers that share a ticket key take each other's tickets, also when they change it") {
  on_each_kernel_engine("there are no tickets", []() -> Task<> {
    const Directory directory;
    TlsServerOptions options = Credentials::instance().server();
    options.ticket_key_file = file_with(directory, "tickets", pattern(80, 1));
    const TlsContext one = TlsContext::server(options);
    const TlsContext other = TlsContext::server(options);
    const TlsContext alone = server_context();
    TcpServer first(EventLoop::current(), {.address = loopback(), .tls = &one});
    TcpServer second(EventLoop::current(), {.address = loopback(), .tls = &other});
    TcpServer stranger(EventLoop::current(), {.address = loopback(), .tls = &alone});
    for (TcpServer* server : {&first, &second, &stranger}) server->start(&echo);
    const TlsContext client = client_context();
    int resumed = co_await resumed_of(2, first.address(), client);
    CHECK(resumed == 1);
    resumed = co_await resumed_of(2, second.address(), client);
    CHECK(resumed == 2);
    file_with(directory, "tickets", pattern(80, 2));
    one.reload();
    resumed = co_await resumed_of(2, first.address(), client);
    CHECK(resumed == 2);
    resumed = co_await resumed_of(1, stranger.address(), client);
    CHECK(resumed == 0);
  });
}

TEST_CASE("sessions outlive a server that hands over to a successor") {
  if (kEmulated) {
    MESSAGE("skipped: the successor is started without the emulator");
    return;
  }
  const Credentials& credentials = Credentials::instance();
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    CAPTURE(version);
    Child server(
        WEIR_TEST_PROGRAMS_DIR "/tls_restart_server",
        {own_loopback().to_string(), credentials.certificate_file, credentials.private_key_file});
    const auto ready = [&server](SocketAddress& address) {
      std::string text = server.read_line();
      if (text.starts_with("drained")) text = server.read_line();  // the two say it at once
      std::istringstream line(text);
      std::string word;
      std::string where;
      pid_t pid = -1;
      line >> word >> pid >> where;
      INFO(line.str());
      REQUIRE(word == "ready");
      address = SocketAddress::parse(where);
      return pid;
    };
    SSL_SESSION* session = nullptr;
    SocketAddress address;
    const auto talk = [&] {
      TlsPeer client(Peer::connect(address), false, [version](SSL_CTX* context) {
        ::SSL_CTX_set_max_proto_version(context, version);
      });
      if (session != nullptr) ::SSL_set_session(client.ssl(), session);
      client.shake_hands();
      client.send("hello");
      CHECK(client.receive_exactly(5) == "hello");
      ::SSL_SESSION_free(session);
      session = ::SSL_get1_session(client.ssl());
      const bool resumed = ::SSL_session_reused(client.ssl()) == 1;
      client.say_end();
      return resumed;
    };
    (void)ready(address);
    CHECK_FALSE(talk());
    int resumed = 0;
    for (int i = 0; i < 10; ++i) resumed += talk() ? 1 : 0;
    CHECK(resumed == 10);
    server.signal(SIGHUP);
    const pid_t successor = ready(address);
    CHECK(server.wait() == 0);  // from here on it is the successor who accepts
    for (int i = 0; i < 100; ++i) resumed += talk() ? 1 : 0;
    CHECK(resumed == 110);
    ::SSL_SESSION_free(session);
    ::kill(successor, SIGTERM);
    int status = -1;
    CHECK(::waitpid(successor, &status, 0) == successor);
    CHECK(status == 0);
  }
  ::prctl(PR_SET_CHILD_SUBREAPER, 0);
}
