#include <weir/io/handover.h>
#include <weir/io/service_manager.h>
#include <weir/net/server/listeners.h>

#include <utility>

namespace weir::detail {

void Listeners::open(Sockets& sockets) {
  AcceptorOptions options;
  options.backlog = options_.backlog;
  options.reuse_port = options_.reuse_port;
  options.no_delay = options_.connection.no_delay;
  options.keep_alive = options_.connection.keep_alive;
  options.unix_mode = options_.unix_mode;
  for (; opened_ < addresses_.size(); ++opened_) {
    SocketAddress& address = addresses_[opened_];
    std::size_t count = options_.inherit_listeners ? inherit(sockets, address) : 0;
    for (; count < (options_.reuse_port ? options_.threads : 1); ++count) {
      open_.push_back({listen(sockets, address, options)});
      address = open_.back().socket.bound_address();  // with the port that all share
    }
  }
}

void Listeners::store() {
  std::vector<int> descriptors;
  for (const Listener& listener : open_) {
    if (!listener.inherited) descriptors.push_back(listener.socket.fd());
  }
  stored_ = !descriptors.empty() && store_descriptors(descriptors);
}

std::size_t Listeners::inherit(Sockets& sockets, SocketAddress& address) {
  std::size_t count = 0;
  for (const int fd : inherited_descriptors()) {
    Socket socket(sockets, fd);
    const SocketAddress bound = socket.local_address();
    const bool fits = bound == address ||
                      (address.is_ip() && address.port() == 0 && bound.with_port(0) == address);
    if (!fits) {
      (void)socket.release();  // another server's, or another address's
      continue;
    }
    if (!take_inherited_descriptor(fd)) {
      (void)socket.release();  // another server was faster
      continue;
    }
    address = bound;
    owns_files_ = inherited_files();
    open_.push_back({std::move(socket), true});
    ++count;
  }
  return count;
}

}  // namespace weir::detail
