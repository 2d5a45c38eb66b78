// Echo on Asio, written with its coroutines.
#include <asio.hpp>

#include <utility>
#include <vector>

#include "options.h"

using asio::awaitable;
using asio::use_awaitable;
using asio::ip::tcp;

namespace {

awaitable<void> echo(tcp::socket socket, std::size_t buffer) try {
  socket.set_option(tcp::no_delay(true));
  std::vector<char> data(buffer);
  for (;;) {
    const std::size_t size = co_await socket.async_read_some(asio::buffer(data), use_awaitable);
    co_await asio::async_write(socket, asio::buffer(data, size), use_awaitable);
  }
} catch (const asio::system_error&) {  // the end of the stream is one too
}

awaitable<void> listen(tcp::acceptor& acceptor, std::size_t buffer) {
  for (;;) {
    tcp::socket socket = co_await acceptor.async_accept(use_awaitable);
    asio::co_spawn(acceptor.get_executor(), echo(std::move(socket), buffer), asio::detached);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const peers::Options options = peers::parse_options(argc, argv);
  asio::io_context context(1);
  asio::signal_set signals(context, SIGINT, SIGTERM);
  signals.async_wait([&](auto, auto) { context.stop(); });
  tcp::acceptor acceptor(context, {asio::ip::address_v4::loopback(), options.port});
  peers::announce(acceptor.local_endpoint().port());
  asio::co_spawn(context, listen(acceptor, options.buffer), asio::detached);
  context.run();
}
