// Connections of the tests under TLS, where WEIR_TEST_TLS is set.
#include <weir/net/connection.h>
#include <weir/net/connection_access.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <mutex>
#include <vector>

#include "tls.h"

namespace weir::test {
namespace {

std::string take(BIO* from) {
  std::string bytes(BIO_ctrl_pending(from), '\0');
  if (!bytes.empty()) ::BIO_read(from, bytes.data(), static_cast<int>(bytes.size()));
  return bytes;
}

SSL_CTX* client_ssl_context() {
  static const std::unique_ptr<SSL_CTX, void (*)(SSL_CTX*)> context(
      ::SSL_CTX_new(::TLS_client_method()), &::SSL_CTX_free);
  return context.get();
}

/// OpenSSL, a client's, in front of a peer's socket. Two threads at a time, of which one sends and
/// one receives.
class ClientLayer final : public PeerLayer {
 public:
  ClientLayer(TestMachine& machine, int fd)
      : machine_(machine), fd_(fd), ssl_(::SSL_new(client_ssl_context()), &::SSL_free) {
    in_ = ::BIO_new(::BIO_s_mem());
    out_ = ::BIO_new(::BIO_s_mem());
    ::SSL_set_bio(ssl_.get(), in_, out_);
    ::SSL_set_connect_state(ssl_.get());
  }
  ~ClientLayer() override {
    const std::lock_guard lock(mutex_of_all());
    std::erase(all(), this);
  }

  /// From now on `go_on` sees to it.
  void begin() {
    (void)agree(false);
    const std::lock_guard lock(mutex_of_all());
    all().push_back(this);
  }

  /// Bytes of the handshake that are not to go through the socket.
  std::string exchange(std::string_view bytes) {
    if (!bytes.empty()) ::BIO_write(in_, bytes.data(), static_cast<int>(bytes.size()));
    agreed_ = ::SSL_do_handshake(ssl_.get()) == 1;
    return take(out_);
  }

  std::int64_t agree(bool waits) override {
    std::unique_lock lock(agreeing_, std::defer_lock);
    if (waits) {
      lock.lock();
    } else if (!lock.try_lock()) {
      return -EAGAIN;
    }
    while (!agreed_) {
      const int error = call([&] { return ::SSL_do_handshake(ssl_.get()); });
      agreed_ = error == 0;
      if (agreed_ && !early_.empty()) {
        (void)call([&] {
          return ::SSL_write(ssl_.get(), early_.data(), static_cast<int>(early_.size()));
        });
      }
      if (const std::int64_t sent = flush(waits); sent < 0) return sent;
      if (agreed_) break;
      if (error != SSL_ERROR_WANT_READ) return -EPROTO;
      if (const std::int64_t got = fill(waits); got <= 0) return got < 0 ? got : -EBADMSG;
    }
    return 0;
  }

  std::int64_t send(std::string_view bytes, bool waits) override {
    if (waits && EventLoop::current_or_null() != nullptr && agree(false) == -EAGAIN) {
      early_ += bytes;  // its server may be of this very thread: it goes when they have agreed
      return static_cast<std::int64_t>(bytes.size());
    }
    if (const std::int64_t error = agree(waits); error < 0) return error;
    if (const std::int64_t error = flush(waits); error < 0) return error;
    const std::string_view part = bytes.substr(0, SSL3_RT_MAX_PLAIN_LENGTH);
    const int error =
        call([&] { return ::SSL_write(ssl_.get(), part.data(), static_cast<int>(part.size())); });
    if (error != 0) return -EPROTO;
    const std::int64_t sent = flush(waits);
    if (sent < 0 && sent != -EAGAIN) return sent;
    return static_cast<std::int64_t>(part.size());
  }

  std::int64_t receive(std::span<char> into, bool waits) override {
    if (const std::int64_t error = agree(waits); error < 0) return error;
    for (;;) {
      int count = 0;
      const int error = call([&] {
        return count = ::SSL_read(ssl_.get(), into.data(), static_cast<int>(into.size()));
      });
      if (error == 0) return count;
      if (error == SSL_ERROR_ZERO_RETURN) return raw_end(waits);
      if (error != SSL_ERROR_WANT_READ) return -EPROTO;
      // A FIN that nothing announced is an error that no plain socket gives.
      if (const std::int64_t got = fill(waits); got <= 0) return got < 0 ? got : -EBADMSG;
    }
  }

  std::int64_t say_end(bool waits) override {
    if (const std::int64_t error = agree(waits); error < 0) return error;
    (void)call([&] { return ::SSL_shutdown(ssl_.get()); });
    return flush(waits);
  }

  static void go_on() {
    const TestMachine& here = TestMachine::current();
    const std::lock_guard lock(mutex_of_all());
    for (ClientLayer* layer : all()) {
      if (&layer->machine_ == &here) (void)layer->agree(false);
    }
  }

 private:
  static std::mutex& mutex_of_all() {
    static std::mutex mutex;
    return mutex;
  }
  static std::vector<ClientLayer*>& all() {
    static std::vector<ClientLayer*> layers;
    return layers;
  }

  /// 0 if it succeeds, else SSL_ERROR_….
  template <class Function>
  int call(Function function) {
    const std::lock_guard lock(mutex_);
    ::ERR_clear_error();
    const int result = function();
    const int error = result > 0 ? 0 : ::SSL_get_error(ssl_.get(), result);
    ::ERR_clear_error();
    return error;
  }

  std::int64_t flush(bool waits) {
    {
      const std::lock_guard lock(mutex_);
      unsent_ += take(out_);
    }
    while (!unsent_.empty()) {
      const std::int64_t sent = machine_.send(fd_, unsent_, waits);
      if (sent < 0) return sent;
      unsent_.erase(0, static_cast<std::size_t>(sent));
    }
    return 0;
  }

  std::int64_t fill(bool waits) {
    char bytes[16384];
    const std::int64_t got = machine_.receive(fd_, bytes, waits);
    if (got <= 0) return got;
    const std::lock_guard lock(mutex_);
    ::BIO_write(in_, bytes, static_cast<int>(got));
    return got;
  }

  /// Behind the close_notify.
  std::int64_t raw_end(bool waits) {
    char byte = 0;
    const std::int64_t got = machine_.receive(fd_, std::span(&byte, 1), waits);
    return got > 0 ? -EPROTO : got;
  }

  TestMachine& machine_;
  const int fd_;
  std::mutex agreeing_;
  std::mutex mutex_;  // of what follows, but while nobody else has heard of this
  std::unique_ptr<SSL, void (*)(SSL*)> ssl_;
  BIO* in_ = nullptr;
  BIO* out_ = nullptr;
  bool agreed_ = false;
  std::string early_;   // sent before that
  std::string unsent_;  // the sender's
};

/// One side of a handshake that goes from hand to hand.
class ByHand {
 public:
  ByHand(TcpConnection& connection, const TlsContext& context)
      : connection_(*weir::detail::ConnectionAccess::of(connection)),
        handshake_(context.factory()->make("localhost")) {}

  /// What it says to that.
  std::string exchange(std::string_view bytes) {
    if (!bytes.empty()) {
      BufferRef buffer = make_buffer(bytes.size());
      std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char*>(buffer->data()));
      const std::byte* data = buffer->data();
      (void)handshake_->receive(std::move(buffer), data, bytes.size(), connection_.inbox());
    }
    const bool done = handshake_->done();
    if (!done && handshake_->has_work() && handshake_->work(connection_.inbox()) != 0) {
      handshake_->throw_failure();
    }
    SegmentQueue wire;
    (void)handshake_->send({}, false, wire);
    std::string said;
    for (; !wire.empty(); wire.pop_front()) {
      said.append(reinterpret_cast<const char*>(wire.front().data()), wire.front().size());
    }
    return said;
  }
  void put_in() { connection_.transforming().begin(std::move(handshake_)); }

 private:
  weir::detail::Connection& connection_;
  std::unique_ptr<Handshake> handshake_;
};

/// Until neither has anything to say.
template <class Client>
void agree_by_hand(Client& client, ByHand& server) {
  for (std::string said = client.exchange({}); !said.empty();) {
    const std::string answer = server.exchange(said);
    said = answer.empty() ? answer : client.exchange(answer);
  }
}

class Mode final : public TlsMode {
 public:
  Mode() { current() = this; }
  ~Mode() override { current() = nullptr; }

  [[nodiscard]] const TlsContext& server() const override { return server_; }

  std::unique_ptr<PeerLayer> secure(TcpConnection& ours, TestMachine& machine, int other) override {
    auto layer = std::make_unique<ClientLayer>(machine, other);
    ByHand by_hand(ours, server_);
    agree_by_hand(*layer, by_hand);
    by_hand.put_in();
    return layer;
  }

  void secure(TcpConnection& client, TcpConnection& server) override {
    ByHand one(client, client_);
    ByHand other(server, server_);
    agree_by_hand(one, other);
    one.put_in();
    other.put_in();
  }

  std::unique_ptr<PeerLayer> begin(TestMachine& machine, int fd) override {
    auto layer = std::make_unique<ClientLayer>(machine, fd);
    layer->begin();
    return layer;
  }

  void go_on() override { ClientLayer::go_on(); }

 private:
  TlsContext server_ = server_context();
  TlsContext client_ = client_context();
};

[[maybe_unused]] const std::unique_ptr<Mode> mode =
    std::getenv("WEIR_TEST_TLS") != nullptr ? std::make_unique<Mode>() : nullptr;

}  // namespace
}  // namespace weir::test
