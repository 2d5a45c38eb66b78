// What comes in on any connection goes out on all of them: by hand on epoll, level-triggered. A
// member whose socket is full misses the rest of the message and is closed.
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <vector>

#include "echo_server.h"

namespace {

void watch(int epoll, int fd) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLRDHUP;
  event.data.fd = fd;
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) {
    throw std::system_error(errno, std::generic_category(), "epoll_ctl");
  }
}

void serve(const reference::Options& options, int listener) {
  const int termination_signal = reference::open_termination_signal();
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  watch(epoll, termination_signal);
  watch(epoll, listener);
  reference::announce(listener);

  std::vector<char> buffer(options.buffer_size != 0 ? options.buffer_size : 65536);
  std::vector<int> members;
  for (;;) {
    epoll_event events[512];
    const int count = epoll_wait(epoll, events, 512, -1);
    for (int i = 0; i < count; ++i) {
      const int fd = events[i].data.fd;
      if (fd == termination_signal) return;
      if (fd == listener) {
        const int member = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (member < 0) continue;
        watch(epoll, member);
        members.push_back(member);
        continue;
      }
      const ssize_t size = recv(fd, buffer.data(), buffer.size(), 0);
      if (size <= 0) {
        if (size < 0 && errno == EAGAIN) continue;
        std::erase(members, fd);
        close(fd);
        continue;
      }
      for (const int member : members) {
        const auto length = static_cast<std::size_t>(size);
        // A shut socket becomes readable and is closed in its turn.
        if (send(member, buffer.data(), length, MSG_NOSIGNAL) != size) shutdown(member, SHUT_RDWR);
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) { return reference::run_server(argc, argv, serve); }
