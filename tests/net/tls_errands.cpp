#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "../support/tls.h"
#include "../support/tls_server.h"

using namespace weir;
using namespace weir::test;

namespace {

/// A server whose signatures take longer than others should wait for, and somebody whom it serves
/// all the while.
struct Busy {
  explicit Busy(const TlsServerOptions& options = with_rsa(),
                const TlsClientOptions& clients = Credentials::instance().client())
      : context(TlsContext::client(clients)), serving(TlsContext::server(options)) {
    group.spawn(be_served(serving.server->address(), context));
  }

  static TlsServerOptions with_rsa() {
    static const Credentials& credentials = Credentials::instance();
    static const std::string files[] = {credentials.directory.file("rsa.pem"),
                                        credentials.directory.file("rsa.key")};
    static const bool made = [] {
      credentials.write({.rsa_bits = 3072}, files[0], files[1]);
      return true;
    }();
    CHECK(made);
    return {.certificate_file = files[0], .private_key_file = files[1]};
  }

  static Task<> be_served(SocketAddress address, TlsContext context) {
    ConnectOptions options;
    options.tls = &context;
    TcpConnection conn = co_await connect(address.to_string(), options);
    for (;;) {
      co_await conn.send("served");
      const Chunk heard = co_await conn.read_exactly(6);
      CHECK(heard.view() == "served");
    }
  }

  /// Two handshakes show how long one takes.
  Task<> begin() {
    for (int i = 0; i < 2; ++i) {
      const Talk heard = co_await talk(serving.server->address(), context);
      CHECK(heard.error.empty());
    }
  }
  Task<> end() {
    group.cancel();
    co_await serving.end();
    CHECK(serving.server->connection_count() == 0);
  }

  TlsContext context;  // of its clients
  Serving serving;
  TaskGroup group;
};

std::size_t threads_for_errands() {
  std::size_t count = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream file(task.path() / "comm");
    std::string name;
    std::getline(file, name);
    count += name == "weir-handshake" ? 1U : 0U;
  }
  return count;
}

Task<> turns(int count) {
  for (int i = 0; i < count; ++i) co_await yield();
}

}  // namespace

TEST_CASE("while somebody is served, handshakes that take long are made on another thread") {
  run([]() -> Task<> {
    Busy busy;
    co_await busy.begin();
    const TlsContext context = client_context();
    for (int i = 0; i < 10; ++i) {
      const Talk heard = co_await talk(busy.serving.server->address(), context);
      CHECK(heard.error.empty());
      CHECK(heard.info.version == "TLSv1.3");
      CHECK(heard.info.resumed == (i > 0));
    }
    CHECK(threads_for_errands() > 0);
    co_await busy.end();
  });
}

TEST_CASE("a client that goes while its handshake is made elsewhere harms nobody") {
  run([]() -> Task<> {
    Busy busy;
    co_await busy.begin();
    for (int i = 0; i < 150; ++i) {
      TaskGroup clients;
      clients.spawn([&]() -> Task<> {
        (void)co_await talk(busy.serving.server->address(), client_context());
      });
      co_await turns(i);
    }
    const Talk heard = co_await talk(busy.serving.server->address(), client_context());
    CHECK(heard.error.empty());
    co_await busy.end();
  });
}

TEST_CASE("a server may go while handshakes of its are made elsewhere") {
  for (int i = 0; i < 60; ++i) {
    run([i]() -> Task<> {
      auto busy = std::make_unique<Busy>();
      co_await busy->begin();
      TaskGroup clients;
      const SocketAddress address = busy->serving.server->address();
      for (int k = 0; k < 4; ++k) {
        clients.spawn([address]() -> Task<> { (void)co_await talk(address, client_context()); });
      }
      co_await turns(i);
      busy->serving.server.reset();
    });
  }
}

TEST_CASE("a handshake that is made elsewhere shows the certificate of the name asked for") {
  run([]() -> Task<> {
    const Credentials& credentials = Credentials::instance();
    const std::string certificate = credentials.directory.file("other.pem");
    const std::string key = credentials.directory.file("other.key");
    credentials.write({.name = "other", .alternative = "DNS:other.example"}, certificate, key);
    Busy busy;
    busy.serving.context.add({"other.example"}, certificate, key);
    co_await busy.begin();
    for (const char* name : {"localhost", "other.example", "localhost"}) {
      const Talk heard = co_await talk(busy.serving.server->address(), client_context(), name);
      CHECK(heard.error.empty());
    }
    co_await busy.end();
  });
}

TEST_CASE("a handshake that is made elsewhere refuses a client without a certificate") {
  run([]() -> Task<> {
    const Credentials& credentials = Credentials::instance();
    TlsServerOptions options = Busy::with_rsa();
    options.client_ca_file = credentials.ca_file;
    TlsClientOptions known = credentials.client();
    known.certificate_file = credentials.client_certificate_file;
    known.private_key_file = credentials.client_key_file;
    Busy busy(options, known);
    co_await busy.begin();
    const Talk refused = co_await talk(busy.serving.server->address(), client_context());
    CHECK(refused.error.find("certificate required") != std::string::npos);
    const Talk heard = co_await talk(busy.serving.server->address(), TlsContext::client(known));
    CHECK(heard.error.empty());
    co_await busy.end();
  });
}
