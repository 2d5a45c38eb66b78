#pragma once

#include <weir/net/tls/factory.h>
#include <weir/net/tls/openssl.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

namespace weir::detail {

/// What OpenSSL asks and says while it works on one connection, by its callbacks. On one thread at
/// a time.
class Conversation {
 public:
  Conversation(const Conversation&) = delete;
  Conversation& operator=(const Conversation&) = delete;

 protected:
  /// Messages of the protocol's own (key updates, tickets) without any of the user's between them.
  static constexpr std::uint8_t kMostMessages = 100;

  Conversation(std::shared_ptr<TlsFactory> factory, std::string peer)
      : factory_(std::move(factory)), peer_(std::move(peer)) {}
  virtual ~Conversation() = default;

  /// While OpenSSL works: whose the work is, and what has come.
  class Call {
   public:
    explicit Call(Conversation& of, const std::byte* data = nullptr, std::size_t size = 0) noexcept;
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;
    ~Call();

    [[nodiscard]] static std::size_t left() noexcept;
  };

  /// From now on it works on this thread, which has one BIO for all. Throws `std::bad_alloc`.
  static void come_to_thread(SSL* ssl);
  /// It is to work on another.
  static void leave_thread(SSL* ssl) noexcept { ::SSL_set_bio(ssl, nullptr, nullptr); }
  /// Asked about each certificate of the other side's.
  static SSL_verify_cb verifier() noexcept;
  /// What SSL_get_error said, as a failure; on the same thread.
  [[nodiscard]] Failure failed(SSL* ssl, int error) noexcept;

  const std::shared_ptr<TlsFactory> factory_;
  const std::string peer_;  // a client's: whom it wants
  std::string problem_;     // what verification found
  bool agreed_ = false;
  bool no_memory_ = false;
  std::uint8_t messages_ = 0;  // of the protocol's own, in a row

 private:
  friend struct Callbacks;

  /// A record for the wire. False: there is no memory for it.
  virtual bool append(const std::byte* data, std::size_t size) noexcept = 0;
  /// Those of the connection's loop.
  [[nodiscard]] virtual std::shared_ptr<const Contexts> contexts() = 0;
};

}  // namespace weir::detail
