#pragma once

#include <string>
#include <thread>
#include <utility>

#include "net.h"

namespace weir::test {

/// Gives back what it gets.
inline Task<> echo(TcpConnection conn) {
  while (Chunk chunk = co_await conn.read()) co_await conn.send(std::move(chunk));
}

/// The one that a server takes by itself, by its name on a command line.
inline std::string best_engine() {
  const EventLoop loop;
  return loop.engine_name() == "epoll" ? "epoll" : "uring";
}

inline ServerOptions server_options(Engine engine, std::size_t threads = 1,
                                    bool reuse_port = false) {
  ServerOptions options;
  options.address = loopback();
  options.threads = threads;
  options.reuse_port = reuse_port;
  options.loop.engine = engine;
  if (const TlsMode* tls = TlsMode::current()) options.tls = &tls->server();
  return options;
}

/// A server that runs in a thread of its own; the end of this stops it.
class ServerThread {
 public:
  ServerThread(ServerOptions options, TcpServer::Handler handler) : server_(std::move(options)) {
    server_.listen();
    thread_ = std::thread(
        [this, handler = std::move(handler)]() mutable { server_.run(std::move(handler)); });
  }
  ServerThread(const ServerThread&) = delete;
  ServerThread& operator=(const ServerThread&) = delete;
  ~ServerThread() { stop(); }

  TcpServer& operator*() noexcept { return server_; }
  TcpServer* operator->() noexcept { return &server_; }
  [[nodiscard]] Peer connect() const { return Peer::connect_to(server_); }

  void stop() {
    if (thread_.joinable()) server_.stop();
    join();
  }
  /// Waits until the server ends by itself.
  void join() {
    if (thread_.joinable()) thread_.join();
  }

 private:
  TcpServer server_;
  std::thread thread_;
};

/// Whether the server has so many connections, and with each of them no handshake is under way.
inline bool has_agreed(const TcpServer& server, std::size_t count) {
  const bool plain = TlsMode::current() == nullptr;
  return server.connection_count() == count && (plain || server.metrics().handshakes == count);
}

/// One exchange with an echo server.
inline bool echoes(Peer& peer, std::string_view text = "hello") {
  peer.send(text);
  return peer.receive_exactly(text.size()) == text;
}

/// Waits, in a thread without a loop, for what another thread is about to bring about.
template <class Condition>
bool eventually(Condition condition) {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

}  // namespace weir::test
