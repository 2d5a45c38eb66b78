#include <weir/core/sleep.h>
#include <weir/coro/event.h>
#include <weir/net/tcp_connection.h>
#include <weir/net/tcp_server.h>

#include <doctest/doctest.h>

#include <chrono>
#include <memory>
#include <optional>
#include <thread>

#include "check.h"
#include "model.h"

using namespace weir;
using namespace weir::schedules;

namespace {

ServerOptions loopback() {
  ServerOptions options;
  options.address = SocketAddress::parse("127.0.0.1:0");
  return options;
}

Task<> serve(TcpConnection) { co_return; }

}  // namespace

TEST_CASE("a server is stopped by another thread while its loop drains it or goes on") {
  check("server, stop", [] {
    ModelLoop loop;
    std::thread thread;
    loop->run_until_complete([&]() -> Task<> {
      TcpServer server(*loop, loopback());
      server.start(serve);
      thread = std::thread([&server] {
        server.stop();
        (void)server.connection_count();
      });
      co_await server.drain(std::chrono::seconds(1));
      thread.join();
    });
  });
}

TEST_CASE("a server ends on another thread while its loop runs, or ends") {
  check("server, end elsewhere", [] {
    ModelLoop loop;
    auto server = std::make_unique<TcpServer>(*loop, loopback());
    server->start(serve);
    std::thread thread([&] { server.reset(); });
    loop->run_until_complete([]() -> Task<> { co_await yield(); });
    thread.join();
  });
  check("server, end against its loop's", [] {
    auto loop = std::make_unique<ModelLoop>();
    auto server = std::make_unique<TcpServer>(**loop, loopback());
    server->start(serve);
    std::thread thread([&] { server->stop(); });
    loop.reset();
    thread.join();
    server.reset();
  });
}

TEST_CASE("what a server counts is asked for while it begins, stops and ends") {
  check("server, metrics", [] {
    ModelLoop loop;
    TcpServer server(*loop, loopback());
    std::thread thread([&] { (void)server.metrics(); });
    loop->run_until_complete([&]() -> Task<> {
      server.start(serve);
      co_await yield();
      server.stop();
    });
    thread.join();
  });
}

TEST_CASE("what a server counts is asked for while its loop ends") {
  check("server, metrics against the end", [] {
    auto loop = std::make_unique<ModelLoop>();
    TcpServer server(**loop, loopback());
    server.start(serve);
    std::thread thread([&] { (void)server.metrics(); });
    loop.reset();
    thread.join();
  });
}

TEST_CASE("a walk over the connections of a server ends, whether that stops meanwhile or not") {
  check("server, walk", [] {
    ModelLoop loop;
    TcpServer server(*loop, loopback());
    Event walked;
    server.start(serve);
    std::thread thread([&] {
      server.for_each_connection([](TcpConnection&) {});
      loop->post([&] { walked.set(); });
    });
    loop->run_until_complete([&]() -> Task<> {
      co_await yield();
      server.stop();
      co_await walked.wait();
    });
    thread.join();
  });
}

TEST_CASE("a walk over the connections of a server ends where the run of its loop does") {
  check("server, walk against the end of a run", [] {
    ModelLoop loop;
    TcpServer server(*loop, loopback());
    server.start(serve);
    std::thread thread([&] { server.for_each_connection([](TcpConnection&) {}); });
    loop->run_until_complete([]() -> Task<> { co_await yield(); });
    thread.join();
  });
}

TEST_CASE("a walk over the connections of a server ends where its loop stands still and ends") {
  check("server, walk against the end of its loop", [] {
    auto loop = std::make_unique<ModelLoop>();
    TcpServer server(**loop, loopback());
    server.start(serve);
    std::thread thread([&] { server.for_each_connection([](TcpConnection&) {}); });
    loop.reset();
    thread.join();
  });
}
