// Echo on Asio, callbacks, with a deadline for every read.
#include <asio.hpp>

#include <chrono>
#include <memory>
#include <utility>
#include <vector>

#include "options.h"

using asio::ip::tcp;

namespace {

class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(tcp::socket socket, const peers::Options& options)
      : socket_(std::move(socket)),
        deadline_(socket_.get_executor()),
        delay_(options.deadline),
        data_(options.buffer) {}

  void read() {
    deadline_.expires_after(delay_);  // cancels the wait before it
    deadline_.async_wait([self = shared_from_this()](asio::error_code error) {
      if (!error) self->socket_.cancel();
    });
    socket_.async_read_some(asio::buffer(data_),
                            [self = shared_from_this()](asio::error_code error, std::size_t size) {
                              if (error) {
                                self->deadline_.cancel();
                              } else {
                                self->write(size);
                              }
                            });
  }

 private:
  void write(std::size_t size) {
    asio::async_write(socket_, asio::buffer(data_, size),
                      [self = shared_from_this()](asio::error_code error, std::size_t) {
                        if (error) {
                          self->deadline_.cancel();
                        } else {
                          self->read();
                        }
                      });
  }

  tcp::socket socket_;
  asio::steady_timer deadline_;
  std::chrono::seconds delay_;
  std::vector<char> data_;
};

void accept(tcp::acceptor& acceptor, const peers::Options& options) {
  acceptor.async_accept([&](asio::error_code error, tcp::socket socket) {
    if (error == asio::error::operation_aborted) return;
    if (!error) {
      socket.set_option(tcp::no_delay(true), error);
      std::make_shared<Session>(std::move(socket), options)->read();
    }
    accept(acceptor, options);
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
  accept(acceptor, options);
  context.run();
}
