// What comes in on any connection goes out on all of them: by hand on liburing. A member whose
// socket is full misses the rest of the message and is closed.
//
// Sends do not wait, so they are over when they are submitted, and only those that failed are told.

#include <liburing.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <vector>

#include "../common/ring.h"
#include "echo_server.h"

namespace {

constexpr unsigned kSubmissionEntries = 1024;
constexpr unsigned kCompletionEntries = 8192;
constexpr unsigned kBuffers = 1024;
constexpr int kSendFlags = MSG_DONTWAIT | MSG_WAITALL | MSG_NOSIGNAL;

enum class Operation : std::uint64_t { terminate, accept, receive, send };

class BroadcastServer {
 public:
  BroadcastServer(const reference::Options& options, int listener, int termination_signal)
      : buffers_(kBuffers, options.buffer_size != 0 ? options.buffer_size : 4096),
        ring_(kSubmissionEntries, kCompletionEntries),
        listener_(listener) {
    buffers_.register_with(ring_);
    io_uring_sqe* entry = ring_.next_entry();
    io_uring_prep_poll_add(entry, termination_signal, POLLIN);
    tag(entry, Operation::terminate, termination_signal);
    accept();
  }

  void run() {
    while (!terminated_) {
      ring_.submit_and_wait();
      if (!ring_.has_unsubmitted()) {
        for (const std::uint16_t id : sent_) buffers_.give_back(id);
        sent_.clear();
        buffers_.publish();
      }
      ring_.for_each_completion([&](const io_uring_cqe& completion) { handle(completion); });
    }
  }

 private:
  static void tag(io_uring_sqe* entry, Operation operation, int fd) {
    entry->user_data = static_cast<std::uint64_t>(fd) << 2 | static_cast<std::uint64_t>(operation);
  }

  void accept() {
    io_uring_sqe* entry = ring_.next_entry();
    io_uring_prep_multishot_accept(entry, listener_, nullptr, nullptr, SOCK_CLOEXEC);
    tag(entry, Operation::accept, listener_);
  }

  void receive(int fd) {
    io_uring_sqe* entry = ring_.next_entry();
    io_uring_prep_recv_multishot(entry, fd, nullptr, 0, 0);
    tag(entry, Operation::receive, fd);
    entry->flags |= IOSQE_BUFFER_SELECT;
    entry->buf_group = bench::BufferRing::group;
  }

  void handle(const io_uring_cqe& completion) {
    const int fd = static_cast<int>(completion.user_data >> 2);
    const bool more = (completion.flags & IORING_CQE_F_MORE) != 0;
    switch (static_cast<Operation>(completion.user_data & 3)) {
      case Operation::terminate:
        terminated_ = true;
        break;
      case Operation::accept:
        if (completion.res >= 0) {
          members_.push_back(completion.res);
          receive(completion.res);
        }
        if (!more) accept();
        break;
      case Operation::receive:
        received(fd, completion, more);
        break;
      case Operation::send:  // failed; the member's receive will give the end, and close it
        if (std::find(members_.begin(), members_.end(), fd) != members_.end()) {
          shutdown(fd, SHUT_RDWR);
        }
        break;
    }
  }

  void received(int fd, const io_uring_cqe& completion, bool more) {
    if ((completion.flags & IORING_CQE_F_BUFFER) != 0) {
      const auto id = static_cast<std::uint16_t>(completion.flags >> IORING_CQE_BUFFER_SHIFT);
      if (completion.res > 0) broadcast(buffers_.data(id), completion.res);
      sent_.push_back(id);
    }
    if (more) return;
    if (completion.res > 0 || completion.res == -ENOBUFS) return receive(fd);
    std::erase(members_, fd);
    close(fd);
  }

  void broadcast(const char* data, int size) {
    for (const int member : members_) {
      io_uring_sqe* entry = ring_.next_entry();
      io_uring_prep_send(entry, member, data, static_cast<std::size_t>(size), kSendFlags);
      tag(entry, Operation::send, member);
      entry->flags |= IOSQE_CQE_SKIP_SUCCESS;
    }
  }

  bench::BufferRing buffers_;
  bench::Ring ring_;
  const int listener_;
  bool terminated_ = false;
  std::vector<int> members_;
  std::vector<std::uint16_t> sent_;  // buffers to give back once their sends are submitted
};

void serve(const reference::Options& options, int listener) {
  const int termination_signal = reference::open_termination_signal();
  BroadcastServer server(options, listener, termination_signal);
  reference::announce(listener);
  server.run();
}

}  // namespace

int main(int argc, char** argv) { return reference::run_server(argc, argv, serve); }
