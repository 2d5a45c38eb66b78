#include <doctest/doctest.h>

#include <chrono>
#include <stdexcept>
#include <string>
#include <system_error>

#include "../support/net.h"

using namespace weir;
using namespace weir::test;

namespace {

void check_names(const std::string& text, const char* option, const char* value) {
  INFO("the text: ", text);
  CHECK(text.find(option) != std::string::npos);
  CHECK(text.find(value) != std::string::npos);
}

std::string text_of_server(ServerOptions options) {
  return text_of<std::invalid_argument>([&] { const TcpServer server(options); });
}

ServerOptions with_address() {
  ServerOptions options;
  options.address = loopback();
  return options;
}

std::string text_of_acceptor(AcceptorOptions options) {
  EventLoop loop;
  return text_of<std::invalid_argument>(
      [&] { const Acceptor acceptor(loop, loopback(), options); });
}

std::string text_of_loop(LoopOptions options) {
  return text_of<std::invalid_argument>([&] { const EventLoop loop(options); });
}

}  // namespace

TEST_CASE("a wrong option of a server throws, and the text names it and its value") {
  check_names(text_of_server({}), "address", "empty");
  ServerOptions options = with_address();
  options.threads = 0;
  check_names(text_of_server(options), "threads", "0");
  options.threads = 5000;
  check_names(text_of_server(options), "threads", "5000");
  options = with_address();
  options.backlog = 0;
  check_names(text_of_server(options), "backlog", "0");
  options.backlog = -3;
  check_names(text_of_server(options), "backlog", "-3");
  options = with_address();
  options.idle_timeout = -4ms;
  check_names(text_of_server(options), "idle_timeout", "-4 ms");
  options = with_address();
  options.drain_timeout = -5ms;
  check_names(text_of_server(options), "drain_timeout", "-5 ms");
  options = with_address();
  options.connection.water_marks = {.high = 100, .low = 200};
  check_names(text_of_server(options), "low", "200");
  options.connection.water_marks = {.high = 0, .low = 0};
  check_names(text_of_server(options), "high", "0");
  options = with_address();
  options.connection.input_high = 0;
  check_names(text_of_server(options), "input_high", "0");
  options = with_address();
  options.connection.linger = -6ms;
  check_names(text_of_server(options), "linger", "-6 ms");
  options = with_address();
  options.loop.ring_entries = 3;
  check_names(text_of_server(options), "ring_entries", "3");
}

TEST_CASE("a server that cannot have its address throws, and the text names it") {
  EventLoop loop;
  const Acceptor taken(loop, loopback());
  ServerOptions options = with_address();
  options.address = taken.address();
  TcpServer server(loop, options);
  check_names(text_of<std::system_error>([&] { server.listen(); }),
              taken.address().to_string().c_str(), "in use");
  options.address = SocketAddress::parse("198.51.100.7:0");
  TcpServer foreign(loop, options);
  check_names(text_of<std::system_error>([&] { foreign.listen(); }), "198.51.100.7", "assign");
}

TEST_CASE("a wrong option of an acceptor throws, and the text names it and its value") {
  check_names(text_of_acceptor({.backlog = 0}), "backlog", "0");
  check_names(text_of_acceptor({.backlog = -1}), "backlog", "-1");
  check_names(text_of_acceptor({.max_waiting = 0}), "max_waiting", "0");
  EventLoop loop;
  CHECK_THROWS_AS(Acceptor(loop, SocketAddress{}), std::invalid_argument);
  CHECK_THROWS_AS(Acceptor(loop, Socket{}), std::invalid_argument);
}

TEST_CASE("a wrong option of a loop throws, and the text names it and its value") {
  check_names(text_of_loop({.ring_entries = 0}), "ring_entries", "0");
  check_names(text_of_loop({.ring_entries = 100}), "ring_entries", "100");
  check_names(text_of_loop({.ring_entries = 1 << 20}), "ring_entries", "1048576");
  check_names(text_of_loop({.buffer_size = 0}), "buffer_size", "0");
  check_names(text_of_loop({.buffer_size = 10}), "buffer_size", "10");
  check_names(text_of_loop({.buffer_size = std::size_t{1} << 30}), "buffer_size", "1073741824");
  check_names(text_of_loop({.buffer_count = 0}), "buffer_count", "0");
  check_names(text_of_loop({.buffer_count = 100'000}), "buffer_count", "100000");
  CHECK_THROWS_WITH_AS(EventLoopThreadPool().start(0), doctest::Contains("0 threads"),
                       std::invalid_argument);
}
