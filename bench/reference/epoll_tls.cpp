// An echo server with TLS, by hand: one thread, edge-triggered epoll, OpenSSL on the socket itself.
//
// What has come is taken with one recv (OpenSSL reads ahead), decrypted record by record into one
// buffer that all connections share, and answered with as few records as hold it. OpenSSL gives its
// own buffers back when they are empty, so an idle connection has none.

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <deque>
#include <memory>
#include <stdexcept>
#include <system_error>
#include <vector>

#include "../common/take_option.h"
#include "echo_server.h"

namespace {

constexpr std::size_t kDefaultBufferSize = 65536;
// Of OpenSSL's own: what one recv takes at the most.
constexpr std::size_t kReadAhead = 65536;
constexpr int kMaxEvents = 512;
// After so many buffers it is the turn of the others, however much a peer sends.
constexpr int kMaxReadsPerTurn = 16;
constexpr int kAcceptRetryMilliseconds = 100;

struct Connection {
  Connection* next = nullptr;  // in the list of the unfinished or of the free ones
  SSL* ssl = nullptr;
  int fd = -1;
  bool open = false;        // the handshake is done
  bool drained = false;     // the last recv left nothing in the socket, and nothing came since
  bool unfinished = false;  // has more to read although no event will say so again
  std::vector<char> unsent;
  std::size_t unsent_begin = 0;
};

struct FreeContext {
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
};
using Context = std::unique_ptr<SSL_CTX, FreeContext>;

[[noreturn]] void fail(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

Context make_context(const bench::TlsFiles& files) {
  Context context(SSL_CTX_new(TLS_server_method()));
  if (context == nullptr) throw std::runtime_error("OpenSSL gives no context");
  SSL_CTX* of = context.get();
  SSL_CTX_set_mode(of, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                           SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_options(of, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  SSL_CTX_set_read_ahead(of, 1);
  SSL_CTX_set_default_read_buffer_len(of, kReadAhead);
  SSL_CTX_set_session_cache_mode(of, SSL_SESS_CACHE_OFF);  // tickets hold the sessions
  if (SSL_CTX_use_certificate_chain_file(of, files.certificate) != 1 ||
      SSL_CTX_use_PrivateKey_file(of, files.key, SSL_FILETYPE_PEM) != 1) {
    throw std::runtime_error(std::string("certificate or key: ") +
                             ERR_error_string(ERR_get_error(), nullptr));
  }
  return context;
}

class EchoServer {
 public:
  EchoServer(const reference::Options& options, Context tls, int listener, int termination_signal)
      : buffer_(options.buffer_size != 0 ? options.buffer_size : kDefaultBufferSize),
        tls_(std::move(tls)),
        listener_(listener),
        epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    if (epoll_ < 0) fail("epoll_create1");
    if (!control(EPOLL_CTL_ADD, termination_signal, EPOLLIN, &terminated_)) fail("epoll_ctl");
    if (!control(EPOLL_CTL_ADD, listener_, EPOLLIN, &accept_paused_)) fail("epoll_ctl");
  }
  ~EchoServer() {
    for (const Connection& connection : connections_) SSL_free(connection.ssl);
    ::close(epoll_);
  }
  EchoServer(const EchoServer&) = delete;
  EchoServer& operator=(const EchoServer&) = delete;

  void run() {
    epoll_event events[kMaxEvents];
    while (!terminated_) {
      const int count = epoll_wait(epoll_, events, kMaxEvents, timeout());
      if (count < 0 && errno != EINTR) fail("epoll_wait");
      if (count == 0 && accept_paused_) pause_accept(false);
      // The unfinished come after the events: only they may be closed without an event of theirs,
      // and after it an event would point to an object that is no more.
      Connection* unfinished = first_unfinished_;
      first_unfinished_ = nullptr;
      for (int i = 0; i < count; ++i) handle(events[i]);
      while (unfinished != nullptr) {
        Connection& connection = *unfinished;
        unfinished = connection.next;
        connection.unfinished = false;
        read(connection, true);
      }
    }
  }

 private:
  bool control(int operation, int fd, std::uint32_t events, void* tag) {
    epoll_event event{};
    event.events = events;
    event.data.ptr = tag;
    return epoll_ctl(epoll_, operation, fd, &event) == 0;
  }

  int timeout() const {
    if (first_unfinished_ != nullptr) return 0;
    return accept_paused_ ? kAcceptRetryMilliseconds : -1;
  }

  void handle(const epoll_event& event) {
    if (event.data.ptr == &terminated_) {
      terminated_ = true;
    } else if (event.data.ptr == &accept_paused_) {
      accept_all();
    } else {
      auto& connection = *static_cast<Connection*>(event.data.ptr);
      const bool to_the_end = (event.events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
      if ((event.events & EPOLLIN) != 0 || to_the_end) connection.drained = false;
      if (connection.unfinished) return;  // will be read to its end below or in the next turn
      if (!connection.open) {
        // The first event may say only that the socket takes bytes.
        const bool begins = (event.events & EPOLLIN) != 0 || connection.ssl != nullptr;
        if (begins || to_the_end) shake_hands(connection, to_the_end);
        return;
      }
      if (!connection.unsent.empty() && !send_unsent(connection)) return;
      read(connection, to_the_end);
    }
  }

  void accept_all() {
    for (;;) {
      const int fd = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd >= 0) {
        open(fd);
      } else if (errno == EAGAIN) {
        return;
      } else if (errno != EINTR && errno != ECONNABORTED) {
        // At the limit of descriptors the listener stays ready: looking away is the only way not to
        // spin.
        return pause_accept(true);
      }
    }
  }

  void pause_accept(bool pause) {
    accept_paused_ = pause;
    const std::uint32_t events = pause ? 0U : EPOLLIN;
    if (!control(EPOLL_CTL_MOD, listener_, events, &accept_paused_)) fail("epoll_ctl");
  }

  void open(int fd) {
    Connection* connection = free_;
    if (connection != nullptr) {
      free_ = connection->next;
    } else {
      connection = &connections_.emplace_back();
    }
    connection->fd = fd;
    if (!control(EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, connection)) {
      close(*connection);  // ENOMEM, ENOSPC: this one cannot be served
    }
  }

  // Not before the first bytes came: whoever says nothing costs nothing of OpenSSL's.
  void shake_hands(Connection& connection, bool to_the_end) {
    if (connection.ssl == nullptr) {
      connection.ssl = SSL_new(tls_.get());
      if (connection.ssl == nullptr || SSL_set_fd(connection.ssl, connection.fd) != 1) {
        return close(connection);
      }
      SSL_set_accept_state(connection.ssl);
    }
    const int result = counting(connection, SSL_do_handshake);
    if (result != 1) {
      if (!waits(connection, result)) close(connection);
      return;
    }
    connection.open = true;
    // What came behind the handshake makes no event of its own.
    if (to_the_end || has_more(connection)) read(connection, to_the_end);
  }

  // Calls what may receive, and learns from OpenSSL's count of bytes what is left in the socket:
  // nothing after a recv that brought less than it had room for. Of the rest of a record OpenSSL
  // takes just that.
  template <typename Call>
  static int counting(Connection& connection, Call call) {
    BIO* const socket = SSL_get_rbio(connection.ssl);
    const std::uint64_t before = BIO_number_read(socket);
    const bool has_part = SSL_has_pending(connection.ssl) == 1;
    const int result = call(connection.ssl);
    const std::uint64_t count = BIO_number_read(socket) - before;
    if (count > 0) connection.drained = !has_part && count < kReadAhead;
    return result;
  }

  static bool has_more(const Connection& connection) {
    return !connection.drained || SSL_has_pending(connection.ssl) == 1;
  }

  // Whether a call that did nothing is to be made again when there is an event.
  static bool waits(const Connection& connection, int result) {
    const int error = SSL_get_error(connection.ssl, result);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return true;
    ERR_clear_error();
    return false;
  }

  // Edge-triggered: has to read until there is nothing more. Only an end of the stream may stand
  // behind a short read (`to_the_end`), and must be read as well.
  void read(Connection& connection, bool to_the_end) {
    for (int i = 0; i < kMaxReadsPerTurn; ++i) {
      std::size_t length = 0;
      bool more = true;
      bool ok = true;
      while (more && length < buffer_.size()) {
        std::size_t part = 0;
        char* const to = buffer_.data() + length;
        const std::size_t room = buffer_.size() - length;
        ok = counting(connection, [&](SSL* ssl) { return SSL_read_ex(ssl, to, room, &part); }) == 1;
        length += part;
        more = ok && (to_the_end || has_more(connection));
      }
      const bool over = !ok && !waits(connection, 0);
      if (length > 0 && !send_all(connection, length, !over)) return;
      if (over) return finish(connection);
      if (!more) return;
    }
    connection.unfinished = true;
    connection.next = first_unfinished_;
    first_unfinished_ = &connection;
  }

  // False if the connection is not to be read from now: the rest waits for EPOLLOUT, or it is
  // closed.
  bool send_all(Connection& connection, std::size_t length, bool may_wait) {
    std::size_t written = 0;
    const char* data = buffer_.data();
    while (length > 0) {
      if (SSL_write_ex(connection.ssl, data, length, &written) != 1) {
        if (!may_wait || !waits(connection, 0)) {
          close(connection);
        } else {
          connection.unsent.assign(data, data + length);
        }
        return false;
      }
      data += written;
      length -= written;
    }
    return true;
  }

  bool send_unsent(Connection& connection) {
    std::vector<char>& unsent = connection.unsent;
    while (connection.unsent_begin < unsent.size()) {
      std::size_t written = 0;
      if (SSL_write_ex(connection.ssl, unsent.data() + connection.unsent_begin,
                       unsent.size() - connection.unsent_begin, &written) != 1) {
        if (!waits(connection, 0)) close(connection);
        return false;
      }
      connection.unsent_begin += written;
    }
    unsent.clear();
    connection.unsent_begin = 0;
    return true;
  }

  // The peer has said all, or has broken off.
  void finish(Connection& connection) {
    if (SSL_get_shutdown(connection.ssl) == SSL_RECEIVED_SHUTDOWN) {
      SSL_shutdown(connection.ssl);
      ERR_clear_error();
    }
    close(connection);
  }

  void close(Connection& connection) {
    SSL_free(connection.ssl);
    connection.ssl = nullptr;
    ::close(connection.fd);
    if (accept_paused_) pause_accept(false);
    connection.open = false;
    connection.unsent = {};  // gives the memory back too
    connection.unsent_begin = 0;
    connection.next = free_;
    free_ = &connection;
  }

  std::vector<char> buffer_;
  const Context tls_;
  const int listener_;
  const int epoll_;
  bool terminated_ = false;
  bool accept_paused_ = false;

  std::deque<Connection> connections_;  // never shrinks, never moves
  Connection* free_ = nullptr;
  Connection* first_unfinished_ = nullptr;
};

bench::TlsFiles files;

void serve(const reference::Options& options, int listener) {
  const int termination_signal = reference::open_termination_signal();
  EchoServer server(options, make_context(files), listener, termination_signal);
  reference::announce(listener);
  server.run();
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);  // OpenSSL writes without MSG_NOSIGNAL
  files = bench::take_tls_files(argc, argv);
  return reference::run_server(argc, argv, serve);
}
