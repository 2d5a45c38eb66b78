// A TCP echo server written by hand on liburing, for one thread and for this one purpose: the limit
// that an echo server on the framework is compared with.
//
// One multishot accept; one multishot receive per connection, into buffers which the kernel takes
// from a common ring; the bytes go out again from the very buffers they came in. A turn takes in
// all completions, gives every connection that has something to send one send, and goes to sleep in
// the same system call that submits them.
//
// A connection that holds too many unsent buffers is not read from until it has sent half of them;
// before the kernel heeds that, it may deliver a hundred more. So peers that never read can take
// all buffers between them, and then hold up the others until they read or go. A server for
// strangers needs a second store of memory; for the limit of what an echo costs it has no place
// here.

#include <liburing.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdint>
#include <deque>
#include <stdexcept>
#include <system_error>
#include <vector>

#include "../common/ring.h"
#include "echo_server.h"

namespace {

using bench::BufferRing;
using bench::Ring;
using BufferId = std::uint16_t;

constexpr unsigned kSubmissionEntries = 512;
constexpr unsigned kCompletionEntries = 8192;
constexpr std::size_t kDefaultBufferSize = 4096;
constexpr std::size_t kDefaultBufferBytes = 4 << 20;
constexpr unsigned kMaxSendVector = 64;
constexpr std::size_t kMaxGathered = 2048;  // pieces in all vectors of a submission

// `receiving` holds from the arming of a receive to its last completion, `sending` from a send to
// its completion. Only when both are over is the descriptor closed and the object used again.
struct Connection {
  Connection* next_to_flush = nullptr;  // or the next free one
  Connection* next_starved = nullptr;
  int fd = -1;
  unsigned queued = 0;  // buffers received and not yet sent, from `first` to `last`
  BufferId first = 0;
  BufferId last = 0;
  unsigned first_sent = 0;  // bytes of `first` which have gone out already
  bool receiving = false;
  bool sending = false;
  bool pausing = false;   // the receive is being cancelled because too much is queued
  bool paused = false;    // and will be armed again when less is
  bool to_flush = false;  // in the list of those that get a send in this turn
  bool starved = false;   // in the list of those that wait for a free buffer
  bool ended = false;     // the peer has sent its last byte
  bool broken = false;    // nothing more can be sent
};

// What a completion belongs to: kept in the low bits of user_data, beside the connection's address.
enum class Operation : std::uint64_t { signal, accept, accept_retry, receive, send, cancel, close };
constexpr std::uint64_t kOperationMask = 7;
static_assert(alignof(Connection) > kOperationMask);

std::uint64_t user_data(Operation operation, const Connection* connection = nullptr) {
  return reinterpret_cast<std::uintptr_t>(connection) | static_cast<std::uint64_t>(operation);
}

class EchoServer {
 public:
  EchoServer(const reference::Options& options, int listener, int termination_signal)
      : buffers_(buffer_count(options), buffer_size(options)),
        ring_(kSubmissionEntries, kCompletionEntries),
        chain_(buffers_.count()),
        pause_at_(std::max(buffers_.count() / 16, 8U)),
        listener_(listener) {
    buffers_.register_with(ring_);
    headers_.reserve(kSubmissionEntries);
    vectors_.reserve(kMaxGathered);
    io_uring_sqe* entry = ring_.next_entry();
    io_uring_prep_poll_add(entry, termination_signal, POLLIN);
    entry->user_data = user_data(Operation::signal);
    arm_accept();
  }

  void run() {
    while (!terminated_) {
      ring_.submit_and_wait();
      if (!ring_.has_unsubmitted()) clear_gathered();
      ring_.for_each_completion([this](const io_uring_cqe& completion) { complete(completion); });
      buffers_.publish();
      arm_starved();
      flush();
    }
  }

 private:
  // A received buffer's place in its connection's queue.
  struct Link {
    unsigned length;
    BufferId next;
  };

  static std::size_t buffer_size(const reference::Options& options) {
    return options.buffer_size != 0 ? options.buffer_size : kDefaultBufferSize;
  }

  // The kernel goes through the buffers in a circle, so more of them than the caches hold would put
  // every message into cold memory.
  static unsigned buffer_count(const reference::Options& options) {
    const std::size_t count = options.buffer_count != 0
                                  ? options.buffer_count
                                  : kDefaultBufferBytes / buffer_size(options);
    return std::bit_ceil(static_cast<unsigned>(std::clamp<std::size_t>(count, 16, 32768)));
  }

  void complete(const io_uring_cqe& completion) {
    auto* connection = reinterpret_cast<Connection*>(completion.user_data & ~kOperationMask);
    switch (static_cast<Operation>(completion.user_data & kOperationMask)) {
      case Operation::receive:
        return received(*connection, completion);
      case Operation::send:
        return sent(*connection, completion.res);
      case Operation::accept:
        return accepted(completion);
      case Operation::accept_retry:
        return arm_accept();
      case Operation::signal:
        terminated_ = true;
        return;
      case Operation::cancel:  // the receive's own completion tells
      case Operation::close:
        return;
    }
  }

  // Accepting.

  void arm_accept() {
    io_uring_sqe* entry = ring_.next_entry();
    io_uring_prep_multishot_accept(entry, listener_, nullptr, nullptr, SOCK_CLOEXEC);
    entry->user_data = user_data(Operation::accept);
  }

  void accepted(const io_uring_cqe& completion) {
    if (completion.res >= 0) open(completion.res);
    if ((completion.flags & IORING_CQE_F_MORE) != 0) return;
    if (completion.res >= 0 || completion.res == -ECONNABORTED) return arm_accept();
    if (completion.res == -EINVAL) {
      throw std::runtime_error("this kernel has no multishot accept (needs Linux 5.19)");
    }
    // At the limit of descriptors an accept fails at once even when nobody is there.
    static __kernel_timespec pause{.tv_sec = 0, .tv_nsec = 100'000'000};
    io_uring_sqe* entry = ring_.next_entry();
    io_uring_prep_timeout(entry, &pause, 0, 0);
    entry->user_data = user_data(Operation::accept_retry);
  }

  void open(int fd) {
    Connection* connection = free_;
    if (connection != nullptr) {
      free_ = connection->next_to_flush;
      *connection = Connection{};
    } else {
      connection = &connections_.emplace_back();
    }
    connection->fd = fd;
    arm_receive(*connection);
  }

  // Receiving.

  void arm_receive(Connection& connection) {
    io_uring_sqe* entry = ring_.next_entry();
    io_uring_prep_recv_multishot(entry, connection.fd, nullptr, 0, 0);
    entry->flags |= IOSQE_BUFFER_SELECT;
    entry->buf_group = BufferRing::group;
    entry->user_data = user_data(Operation::receive, &connection);
    connection.receiving = true;
  }

  void received(Connection& connection, const io_uring_cqe& completion) {
    const int result = completion.res;
    if ((completion.flags & IORING_CQE_F_BUFFER) != 0) {
      const auto id = static_cast<BufferId>(completion.flags >> IORING_CQE_BUFFER_SHIFT);
      ++buffers_in_use_;
      if (result > 0 && !connection.broken) {
        append(connection, id, static_cast<unsigned>(result));
      } else {
        release(id);
      }
    }
    // A receive that goes on has data, and a last completion may have data as well.
    if ((completion.flags & IORING_CQE_F_MORE) == 0) {
      receive_ended(connection, result);
    } else if (connection.queued >= pause_at_ && !connection.pausing) {
      connection.pausing = true;
      io_uring_sqe* entry = ring_.next_entry();
      io_uring_prep_cancel64(entry, user_data(Operation::receive, &connection), 0);
      entry->user_data = user_data(Operation::cancel);
    }
  }

  void receive_ended(Connection& connection, int result) {
    connection.receiving = false;
    const bool cancelled = result == -ECANCELED && connection.pausing;
    connection.pausing = false;
    if (result == 0) {
      connection.ended = true;
    } else if (result == -EINVAL) {
      throw std::runtime_error("this kernel has no multishot receive (needs Linux 6.0)");
    } else if (result < 0 && result != -ENOBUFS && !cancelled) {
      break_off(connection);
    }
    if (connection.ended || connection.broken) return close_if_over(connection);

    if (connection.queued > pause_at_ / 2) {
      connection.paused = true;
    } else if (result == -ENOBUFS) {
      connection.starved = true;
      *last_starved_ = &connection;
      last_starved_ = &connection.next_starved;
    } else {
      arm_receive(connection);
    }
  }

  // A receive armed while there is no buffer fails again at once, so no more are armed than there
  // are buffers; the others wait for buffers to come back.
  void arm_starved() {
    for (unsigned available = buffers_.count() - buffers_in_use_;
         first_starved_ != nullptr && available != 0; --available) {
      Connection& connection = *first_starved_;
      first_starved_ = connection.next_starved;
      if (first_starved_ == nullptr) last_starved_ = &first_starved_;
      connection.next_starved = nullptr;
      connection.starved = false;
      if (connection.broken) {
        close_if_over(connection);
      } else {
        arm_receive(connection);
      }
    }
  }

  // Sending.

  void append(Connection& connection, BufferId id, unsigned length) {
    chain_[id].length = length;
    if (connection.queued++ == 0) {
      connection.first = id;
    } else {
      chain_[connection.last].next = id;
    }
    connection.last = id;
    flush_later(connection);
  }

  void flush_later(Connection& connection) {
    if (connection.to_flush || connection.sending) return;
    connection.to_flush = true;
    connection.next_to_flush = first_to_flush_;
    first_to_flush_ = &connection;
  }

  void flush() {
    while (first_to_flush_ != nullptr) {
      Connection& connection = *first_to_flush_;
      first_to_flush_ = connection.next_to_flush;
      connection.to_flush = false;
      if (connection.queued != 0) {
        send(connection);
      } else {
        close_if_over(connection);
      }
    }
  }

  void send(Connection& connection) {
    io_uring_sqe* entry;
    if (connection.queued == 1) {
      const BufferId first = connection.first;
      entry = ring_.next_entry();
      io_uring_prep_send(entry, connection.fd, buffers_.data(first) + connection.first_sent,
                         chain_[first].length - connection.first_sent, kSendFlags);
    } else {
      const msghdr* header = gather(connection);
      entry = ring_.next_entry();
      io_uring_prep_sendmsg(entry, connection.fd, header, kSendFlags);
    }
    entry->user_data = user_data(Operation::send, &connection);
    connection.sending = true;
  }

  // The kernel copies header and vector when it takes the entry, so both need to last only until
  // then (IORING_FEAT_SUBMIT_STABLE, older than all else used here).
  const msghdr* gather(const Connection& connection) {
    if (headers_.size() == headers_.capacity() ||
        vectors_.size() + kMaxSendVector > vectors_.capacity()) {
      ring_.submit();
      clear_gathered();
    }
    const unsigned count = std::min(connection.queued, kMaxSendVector);
    iovec* vector = vectors_.data() + vectors_.size();
    BufferId id = connection.first;
    unsigned skip = connection.first_sent;
    for (unsigned i = 0; i < count; ++i) {
      vectors_.push_back({buffers_.data(id) + skip, chain_[id].length - skip});
      skip = 0;
      id = chain_[id].next;
    }
    msghdr& header = headers_.emplace_back();
    header.msg_iov = vector;
    header.msg_iovlen = count;
    return &header;
  }

  void clear_gathered() {
    headers_.clear();
    vectors_.clear();
  }

  void sent(Connection& connection, int result) {
    connection.sending = false;
    if (result < 0 || connection.broken) {
      break_off(connection);
      return close_if_over(connection);
    }
    // MSG_WAITALL makes a short send rare, not impossible.
    for (auto rest = static_cast<unsigned>(result); rest != 0;) {
      const BufferId first = connection.first;
      const unsigned length = chain_[first].length - connection.first_sent;
      if (rest < length) {
        connection.first_sent += rest;
        break;
      }
      rest -= length;
      connection.first = chain_[first].next;
      connection.first_sent = 0;
      --connection.queued;
      release(first);
    }
    if (connection.queued != 0) {
      flush_later(connection);
    } else if (connection.ended) {
      return close_if_over(connection);
    }
    if (connection.paused && connection.queued <= pause_at_ / 2) {
      connection.paused = false;
      arm_receive(connection);
    }
  }

  // Ending.

  void break_off(Connection& connection) {
    connection.broken = true;
    if (!connection.sending) release_queue(connection);
    if (connection.receiving) shutdown(connection.fd, SHUT_RDWR);  // ends the receive
  }

  void close_if_over(Connection& connection) {
    const bool in_use = connection.receiving || connection.sending || connection.queued != 0 ||
                        connection.to_flush || connection.starved;
    if (in_use || !(connection.ended || connection.broken)) return;
    io_uring_sqe* entry = ring_.next_entry();
    io_uring_prep_close(entry, connection.fd);
    entry->flags |= IOSQE_CQE_SKIP_SUCCESS;
    entry->user_data = user_data(Operation::close);
    connection.next_to_flush = free_;
    free_ = &connection;
  }

  void release_queue(Connection& connection) {
    for (; connection.queued != 0; --connection.queued) {
      const BufferId first = connection.first;
      connection.first = chain_[first].next;
      release(first);
    }
  }

  void release(BufferId id) {
    --buffers_in_use_;
    buffers_.give_back(id);
  }

  static constexpr int kSendFlags = MSG_WAITALL | MSG_NOSIGNAL;

  BufferRing buffers_;
  Ring ring_;
  std::vector<Link> chain_;  // by buffer id
  unsigned buffers_in_use_ = 0;
  const unsigned pause_at_;
  const int listener_;
  bool terminated_ = false;

  std::deque<Connection> connections_;  // never shrinks, never moves
  Connection* free_ = nullptr;
  Connection* first_to_flush_ = nullptr;
  Connection* first_starved_ = nullptr;
  Connection** last_starved_ = &first_starved_;

  std::vector<msghdr> headers_;
  std::vector<iovec> vectors_;
};

void serve(const reference::Options& options, int listener) {
  const int termination_signal = reference::open_termination_signal();
  EchoServer server(options, listener, termination_signal);
  reference::announce(listener);
  server.run();
}

}  // namespace

int main(int argc, char** argv) { return reference::run_server(argc, argv, serve); }
