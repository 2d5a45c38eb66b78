#include <weir/core/machine.h>
#include <weir/net/tls/openssl.h>
#include <weir/net/tls/simulated_random.h>
#include <weir/net/tls/ticket_keys.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/params.h>
#include <openssl/rand.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace weir::detail {
namespace {

/// What `secrets` begins with; then the age of the key in seconds, and the keys.
constexpr std::string_view kMagic = "weir tickets 1\n";

TicketKey new_key() {
  const RealRandom real_random;
  TicketKey key;
  if (::RAND_priv_bytes(reinterpret_cast<unsigned char*>(&key), sizeof(key)) != 1) {
    throw_openssl_failure("weir: TlsContext: OpenSSL has no randomness");
  }
  return key;
}

}  // namespace

TicketKeys::TicketKeys(TimePoint now) : current_(new_key()), since_(now) {}

TicketKeys::~TicketKeys() {
  ::OPENSSL_cleanse(&current_, sizeof(current_));
  ::OPENSSL_cleanse(&previous_, sizeof(previous_));
}

void TicketKeys::follow(const TicketKey& key, TimePoint since) {
  previous_ = current_;
  current_ = key;
  since_ = since;
}

void TicketKeys::use(std::span<const unsigned char> key, TimePoint now) {
  TicketKey next;
  std::memcpy(&next, key.data(), sizeof(next));
  const std::lock_guard lock(mutex_);
  shared_ = true;
  if (std::memcmp(&next, &current_, sizeof(next)) != 0) follow(next, now);
  ::OPENSSL_cleanse(&next, sizeof(next));
}

void TicketKeys::rotate(TimePoint now) {
  if (now - since_ < kPeriod) return;
  if (!shared_) {
    const bool too_old = now - since_ >= 2 * kPeriod;  // there was nobody for long
    follow(new_key(), now);
    if (!too_old) return;
  }
  previous_.reset();
}

TicketKey TicketKeys::newest(TimePoint now) {
  const std::lock_guard lock(mutex_);
  rotate(now);
  return current_;
}

std::optional<TicketKeys::Found> TicketKeys::find(const unsigned char* name, TimePoint now) {
  const auto is = [name](const TicketKey& key) {
    return ::CRYPTO_memcmp(key.name, name, TicketKey::kName) == 0;
  };
  const std::lock_guard lock(mutex_);
  rotate(now);
  if (is(current_)) return Found{current_, true};
  if (previous_ && is(*previous_)) return Found{*previous_, false};
  return std::nullopt;
}

std::string TicketKeys::secrets(TimePoint now) const {
  const std::lock_guard lock(mutex_);
  std::string text(kMagic);
  const auto age = static_cast<std::uint64_t>(
      std::max<std::int64_t>(0, std::chrono::floor<std::chrono::seconds>(now - since_).count()));
  text.append(reinterpret_cast<const char*>(&age), sizeof(age));
  text.append(reinterpret_cast<const char*>(&current_), sizeof(current_));
  if (previous_) text.append(reinterpret_cast<const char*>(&*previous_), sizeof(*previous_));
  return text;
}

void TicketKeys::inherit(std::string_view secrets, TimePoint now) noexcept {
  std::uint64_t age = 0;
  if (!secrets.starts_with(kMagic)) return;
  secrets.remove_prefix(kMagic.size());
  const bool two = secrets.size() == sizeof(age) + 2 * kTicketKey;
  if (!two && secrets.size() != sizeof(age) + kTicketKey) return;
  std::memcpy(&age, secrets.data(), sizeof(age));
  secrets.remove_prefix(sizeof(age));
  const auto since = now - std::chrono::seconds(std::min<std::uint64_t>(age, 1U << 30));
  const std::lock_guard lock(mutex_);
  if (shared_) {
    if (std::memcmp(&current_, secrets.data(), kTicketKey) == 0) return;
    std::memcpy(&previous_.emplace(), secrets.data(), kTicketKey);
    return;
  }
  std::memcpy(&current_, secrets.data(), kTicketKey);
  previous_.reset();
  if (two) std::memcpy(&previous_.emplace(), secrets.data() + kTicketKey, kTicketKey);
  since_ = since;
}

int use_ticket_key(TicketKeys& keys, unsigned char* name, unsigned char* iv, EVP_CIPHER_CTX* cipher,
                   EVP_MAC_CTX* mac, bool makes) noexcept {
  try {
    const TimePoint now = process_machine().now();
    TicketKeys::Found found{{}, true};
    if (makes) {
      found.key = keys.newest(now);
      std::memcpy(name, found.key.name, sizeof(found.key.name));
      if (::RAND_bytes(iv, ::EVP_CIPHER_get_iv_length(::EVP_aes_256_cbc())) != 1) return -1;
    } else if (const auto known = keys.find(name, now)) {
      found = *known;
    } else {
      return 0;  // a handshake in full
    }
    char digest[] = "SHA256";
    const OSSL_PARAM parameters[] = {
        ::OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, found.key.mac,
                                            sizeof(found.key.mac)),
        ::OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        ::OSSL_PARAM_construct_end()};
    const bool ok = ::EVP_CipherInit_ex(cipher, ::EVP_aes_256_cbc(), nullptr, found.key.cipher, iv,
                                        makes ? 1 : 0) == 1 &&
                    ::EVP_MAC_CTX_set_params(mac, parameters) == 1;
    ::OPENSSL_cleanse(&found.key, sizeof(found.key));
    if (!ok) return -1;
    return found.newest ? 1 : 2;  // 2: the client is to get a new one
  } catch (...) {
    return -1;
  }
}

}  // namespace weir::detail
