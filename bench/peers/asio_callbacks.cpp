// Echo on Asio, written with callbacks.
#include <asio.hpp>

#include <memory>
#include <utility>
#include <vector>

#include "options.h"

using asio::ip::tcp;

namespace {

class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(tcp::socket socket, std::size_t size) : socket_(std::move(socket)), data_(size) {}

  void read() {
    socket_.async_read_some(asio::buffer(data_),
                            [self = shared_from_this()](asio::error_code error, std::size_t size) {
                              if (!error) self->write(size);
                            });
  }

 private:
  void write(std::size_t size) {
    asio::async_write(socket_, asio::buffer(data_, size),
                      [self = shared_from_this()](asio::error_code error, std::size_t) {
                        if (!error) self->read();
                      });
  }

  tcp::socket socket_;
  std::vector<char> data_;
};

void accept(tcp::acceptor& acceptor, std::size_t size) {
  acceptor.async_accept([&acceptor, size](asio::error_code error, tcp::socket socket) {
    if (error == asio::error::operation_aborted) return;
    if (!error) {
      socket.set_option(tcp::no_delay(true), error);
      std::make_shared<Session>(std::move(socket), size)->read();
    }
    accept(acceptor, size);
  });
}

}  // namespace

int main(int argc, char** argv) {
  const peers::Options options = peers::parse_options(argc, argv);
  asio::io_context context(1);
  asio::signal_set signals(context, SIGINT, SIGTERM);
  signals.async_wait([&](auto, auto) { context.stop(); });
  tcp::acceptor acceptor(context, {asio::ip::address_v4::loopback(), options.port});
  peers::announce(acceptor.local_endpoint().port());
  accept(acceptor, options.buffer);
  context.run();
}
