#include "link.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <utility>

#include "../load_client/run.h"

namespace tls_load {
namespace {

using load_client::describe;
using load_client::Records;
using load_client::RunError;

constexpr std::size_t kReadAhead = 65536;

std::string openssl_reason() {
  const unsigned long error = ERR_peek_error();
  const char* reason = ERR_reason_error_string(error);
  ERR_clear_error();
  return reason != nullptr ? reason : "the server has closed a connection";
}

void count_record(int sent, int /*version*/, int type, const void* data, std::size_t size,
                  SSL* /*ssl*/, void* records) {
  // The type that TLS 1.3 hides inside of a record.
  if (type != SSL3_RT_INNER_CONTENT_TYPE || size != 1) return;
  if (*static_cast<const unsigned char*>(data) != SSL3_RT_APPLICATION_DATA) return;
  auto& counts = *static_cast<Records*>(records);
  ++(sent != 0 ? counts.sent : counts.received);
}

int keep_session(SSL* ssl, SSL_SESSION* session) {
  auto* newest = static_cast<Session*>(SSL_get_app_data(ssl));
  if (newest == nullptr) return 0;
  newest->reset(session);
  return 1;  // the reference is ours
}

}  // namespace

Context make_context(Records& records) {
  Context context(SSL_CTX_new(TLS_client_method()));
  SSL_CTX* of = context.get();
  if (of == nullptr || SSL_CTX_set_min_proto_version(of, TLS1_3_VERSION) != 1 ||
      SSL_CTX_set_ciphersuites(of, "TLS_AES_256_GCM_SHA384") != 1 ||
      SSL_CTX_set1_groups_list(of, "X25519") != 1) {
    throw RunError("OpenSSL: " + openssl_reason());
  }
  SSL_CTX_set_mode(of, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                           SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_read_ahead(of, 1);
  SSL_CTX_set_default_read_buffer_len(of, kReadAhead);
  SSL_CTX_set_session_cache_mode(of, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  SSL_CTX_sess_set_new_cb(of, keep_session);
  SSL_CTX_set_msg_callback(of, count_record);
  SSL_CTX_set_msg_callback_arg(of, &records);
  return context;
}

Link::Link(const load_client::Options& options, SSL_CTX* context, unsigned source, Session* newest)
    : fd_(load_client::open_socket(options, source)) {
  const int on = 1;
  setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  fcntl(fd_, F_SETFL, O_NONBLOCK);
  const bench::SocketAddress& server = options.server;
  if (connect(fd_, server.native(), server.length) < 0 && errno != EINPROGRESS) {
    const int error = errno;
    close(fd_);
    throw RunError(error == EADDRNOTAVAIL ? "no local port is free (too many in TIME_WAIT)"
                                          : describe("connect", error));
  }
  if (context == nullptr) return;
  ssl_.reset(SSL_new(context));
  if (ssl_ == nullptr || SSL_set_fd(ssl_.get(), fd_) != 1) throw RunError(openssl_reason());
  SSL_set_app_data(ssl_.get(), newest);
  if (newest != nullptr && *newest != nullptr) SSL_set_session(ssl_.get(), newest->get());
  SSL_set_connect_state(ssl_.get());
}

Link::~Link() {
  if (ssl_ != nullptr && SSL_is_init_finished(ssl_.get()) == 1) SSL_shutdown(ssl_.get());
  ssl_.reset();
  ERR_clear_error();
  close(fd_);
}

bool Link::shake() {
  if (ssl_ != nullptr) {
    const int result = SSL_do_handshake(ssl_.get());
    return outcome("handshake", result == 1, 1) == 1;
  }
  sockaddr_storage peer{};
  socklen_t size = sizeof peer;
  int error = 0;
  socklen_t error_size = sizeof error;
  getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &error_size);
  if (error != 0) throw RunError(describe("connect", error));
  waits_to_write_ = getpeername(fd_, reinterpret_cast<sockaddr*>(&peer), &size) < 0;
  return !waits_to_write_;
}

std::size_t Link::read(char* to, std::size_t size) {
  std::size_t count = 0;
  if (ssl_ != nullptr) {
    const bool ok = SSL_read_ex(ssl_.get(), to, size, &count) == 1;
    return outcome("receive", ok, count);
  }
  const ssize_t result = recv(fd_, to, size, 0);
  if (result == 0) throw RunError("the server has closed a connection");
  if (result < 0 && errno != EAGAIN) throw RunError(describe("receive", errno));
  waits_to_write_ = false;
  return result < 0 ? 0 : static_cast<std::size_t>(result);
}

std::size_t Link::write(const char* data, std::size_t size) {
  std::size_t count = 0;
  if (ssl_ != nullptr) {
    const bool ok = SSL_write_ex(ssl_.get(), data, size, &count) == 1;
    return outcome("send", ok, count);
  }
  const ssize_t result = send(fd_, data, size, MSG_NOSIGNAL);
  if (result < 0 && errno != EAGAIN) throw RunError(describe("send", errno));
  waits_to_write_ = result < 0;
  return result < 0 ? 0 : static_cast<std::size_t>(result);
}

std::size_t Link::outcome(const char* what, bool ok, std::size_t count) {
  waits_to_write_ = false;
  if (ok) return count;
  const int number = errno;
  switch (SSL_get_error(ssl_.get(), 0)) {
    case SSL_ERROR_WANT_WRITE:
      waits_to_write_ = true;
      return 0;
    case SSL_ERROR_WANT_READ:
      return 0;
    case SSL_ERROR_SYSCALL:
      if (number != 0) throw RunError(describe(what, number));
      [[fallthrough]];
    default:
      throw RunError(std::string(what) + ": " + openssl_reason());
  }
}

}  // namespace tls_load
