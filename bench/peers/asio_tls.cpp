// Echo with TLS on Asio, written with callbacks.
#include <asio.hpp>
#include <asio/ssl.hpp>

#include <memory>
#include <utility>
#include <vector>

#include "../common/take_option.h"
#include "options.h"

using asio::ip::tcp;
namespace ssl = asio::ssl;

namespace {

class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(tcp::socket socket, ssl::context& context, std::size_t size)
      : stream_(std::move(socket), context), data_(size) {}

  void start() {
    stream_.async_handshake(ssl::stream_base::server,
                            [self = shared_from_this()](asio::error_code error) {
                              if (!error) self->read();
                            });
  }

 private:
  void read() {
    stream_.async_read_some(asio::buffer(data_),
                            [self = shared_from_this()](asio::error_code error, std::size_t size) {
                              if (!error) return self->write(size);
                              if (error == asio::error::eof) self->shut_down();
                            });
  }

  void write(std::size_t size) {
    asio::async_write(stream_, asio::buffer(data_, size),
                      [self = shared_from_this()](asio::error_code error, std::size_t) {
                        if (!error) self->read();
                      });
  }

  void shut_down() {
    stream_.async_shutdown([self = shared_from_this()](asio::error_code) {});
  }

  ssl::stream<tcp::socket> stream_;
  std::vector<char> data_;
};

void accept(tcp::acceptor& acceptor, ssl::context& context, std::size_t size) {
  acceptor.async_accept([&acceptor, &context, size](asio::error_code error, tcp::socket socket) {
    if (error == asio::error::operation_aborted) return;
    if (!error) {
      socket.set_option(tcp::no_delay(true), error);
      std::make_shared<Session>(std::move(socket), context, size)->start();
    }
    accept(acceptor, context, size);
  });
}

}  // namespace

int main(int argc, char** argv) {
  const bench::TlsFiles files = bench::take_tls_files(argc, argv);
  const peers::Options options = peers::parse_options(argc, argv);
  ssl::context tls(ssl::context::tls_server);
  tls.use_certificate_chain_file(files.certificate);
  tls.use_private_key_file(files.key, ssl::context::pem);
  asio::io_context context(1);
  asio::signal_set signals(context, SIGINT, SIGTERM);
  signals.async_wait([&](auto, auto) { context.stop(); });
  tcp::acceptor acceptor(context, {asio::ip::address_v4::loopback(), options.port});
  peers::announce(acceptor.local_endpoint().port());
  accept(acceptor, tls, options.buffer);
  context.run();
}
