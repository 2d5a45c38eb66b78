#pragma once

#include <weir/coro/scheduler.h>

#include <openssl/evp.h>

#include <chrono>
#include <cstddef>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace weir::detail {

/// As OpenSSL takes it, and as `ticket_key_file` holds it.
struct TicketKey {
  static constexpr std::size_t kName = 16;
  static constexpr std::size_t kSecret = 32;

  unsigned char name[kName];
  unsigned char mac[kSecret];     // HMAC with SHA-256
  unsigned char cipher[kSecret];  // AES-256-CBC
};
inline constexpr std::size_t kTicketKey = sizeof(TicketKey);

/// What a server's tickets are made out with (RFC 5077, 4; RFC 8446, 4.6.1): one key for all loops,
/// followed by a new one while the tickets of the last are still good. From any thread.
class TicketKeys {
 public:
  /// How long one is in use, and then taken: as long as a ticket is good.
  static constexpr std::chrono::hours kPeriod{2};

  /// Throws `std::system_error` without randomness.
  explicit TicketKeys(TimePoint now);
  ~TicketKeys();
  TicketKeys(const TicketKeys&) = delete;
  TicketKeys& operator=(const TicketKeys&) = delete;

  /// Of all who share the key, from now on; `key` has `kTicketKey` bytes. No other follows by
  /// itself.
  void use(std::span<const unsigned char> key, TimePoint now);

  /// The one for new tickets. Throws `std::system_error` without randomness.
  [[nodiscard]] TicketKey newest(TimePoint now);
  struct Found {
    TicketKey key;
    bool newest;
  };
  /// The one of this name, of `TicketKey::kName` bytes.
  [[nodiscard]] std::optional<Found> find(const unsigned char* name, TimePoint now);

  /// For another process; taken there with `inherit`, which leaves alone what it does not know, and
  /// prefers a key of `use` for new tickets.
  [[nodiscard]] std::string secrets(TimePoint now) const;
  void inherit(std::string_view secrets, TimePoint now) noexcept;

 private:
  void rotate(TimePoint now);
  void follow(const TicketKey& key, TimePoint since);

  mutable std::mutex mutex_;
  TicketKey current_;
  std::optional<TicketKey> previous_;
  TimePoint since_;  // of the current one
  bool shared_ = false;
};

/// What OpenSSL asks for when it makes out a ticket, or reads one
/// (SSL_CTX_set_tlsext_ticket_key_evp_cb(3)).
int use_ticket_key(TicketKeys& keys, unsigned char* name, unsigned char* iv, EVP_CIPHER_CTX* cipher,
                   EVP_MAC_CTX* mac, bool makes) noexcept;

}  // namespace weir::detail
