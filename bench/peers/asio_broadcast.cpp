// What comes in on any connection goes out on all of them: Asio, callbacks.
#include <asio.hpp>

#include <deque>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "options.h"

using asio::ip::tcp;

namespace {

class Session;
using Members = std::set<std::shared_ptr<Session>>;
using Message = std::shared_ptr<const std::string>;

class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(tcp::socket socket, Members& members, std::size_t size)
      : socket_(std::move(socket)), members_(members), data_(size) {}

  void read() {
    socket_.async_read_some(asio::buffer(data_),
                            [self = shared_from_this()](asio::error_code error, std::size_t size) {
                              self->received(error, size);
                            });
  }

 private:
  static constexpr std::size_t kMostQueued = 10000;

  void received(asio::error_code error, std::size_t size) {
    if (error) {
      members_.erase(shared_from_this());
      return;
    }
    const auto message = std::make_shared<const std::string>(data_.data(), size);
    for (const auto& member : members_) member->send(message);
    read();
  }

  void send(const Message& message) {
    if (queue_.size() >= kMostQueued) return;
    queue_.push_back(message);
    if (queue_.size() == 1) write();
  }

  void write() {
    asio::async_write(socket_, asio::buffer(*queue_.front()),
                      [self = shared_from_this()](asio::error_code error, std::size_t) {
                        if (error) return;
                        self->queue_.pop_front();
                        if (!self->queue_.empty()) self->write();
                      });
  }

  tcp::socket socket_;
  Members& members_;
  std::vector<char> data_;
  std::deque<Message> queue_;
};

void accept(tcp::acceptor& acceptor, Members& members, std::size_t size) {
  acceptor.async_accept([&acceptor, &members, size](asio::error_code error, tcp::socket socket) {
    if (error == asio::error::operation_aborted) return;
    if (!error) {
      socket.set_option(tcp::no_delay(true), error);
      auto session = std::make_shared<Session>(std::move(socket), members, size);
      session->read();
      members.insert(std::move(session));
    }
    accept(acceptor, members, size);
  });
}

}  // namespace

int main(int argc, char** argv) {
  const peers::Options options = peers::parse_options(argc, argv);
  Members members;
  asio::io_context context(1);
  asio::signal_set signals(context, SIGINT, SIGTERM);
  signals.async_wait([&](auto, auto) { context.stop(); });
  tcp::acceptor acceptor(context, {asio::ip::address_v4::loopback(), options.port});
  peers::announce(acceptor.local_endpoint().port());
  accept(acceptor, members, options.buffer);
  context.run();
}
