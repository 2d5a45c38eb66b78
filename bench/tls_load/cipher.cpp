#include "cipher.h"

#include <openssl/evp.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <vector>

namespace tls_load {
namespace {

using load_client::RunError;

constexpr int kTag = 16;
constexpr int kHeader = SSL3_RT_HEADER_LENGTH;
// Requests between two looks at the clock: as many as make some ten microseconds.
constexpr std::size_t kBytesAtOnce = 16384;

struct FreeCipher {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};

// One direction of a connection.
class Direction {
 public:
  explicit Direction(bool seals) : seals_(seals), context_(EVP_CIPHER_CTX_new()) {
    static constexpr unsigned char kKey[32] = {1, 2, 3};
    if (context_ == nullptr ||
        EVP_CipherInit_ex(context_.get(), EVP_aes_256_gcm(), nullptr, kKey, nullptr, seals) != 1) {
      throw RunError("OpenSSL has no AES-256-GCM");
    }
  }

  // In place; the tag stands behind `size` bytes of the record.
  void pass(unsigned char* record, int size) {
    ++number_;
    std::memcpy(nonce_.data() + 4, &number_, sizeof number_);
    const unsigned char header[kHeader] = {SSL3_RT_APPLICATION_DATA, 3, 3, 0, 0};
    EVP_CIPHER_CTX* of = context_.get();
    unsigned char* const tag = record + size;
    int count = 0;
    bool ok = EVP_CipherInit_ex(of, nullptr, nullptr, nullptr, nonce_.data(), seals_) == 1;
    if (!seals_) ok = ok && EVP_CIPHER_CTX_ctrl(of, EVP_CTRL_AEAD_SET_TAG, kTag, tag) == 1;
    ok = ok && EVP_CipherUpdate(of, nullptr, &count, header, kHeader) == 1 &&
         EVP_CipherUpdate(of, record, &count, record, size) == 1 &&
         EVP_CipherFinal_ex(of, tag, &count) == 1;
    if (seals_) ok = ok && EVP_CIPHER_CTX_ctrl(of, EVP_CTRL_AEAD_GET_TAG, kTag, tag) == 1;
    if (!ok) throw RunError("a record did not pass the cipher");
  }

 private:
  const int seals_;
  std::unique_ptr<EVP_CIPHER_CTX, FreeCipher> context_;
  std::array<unsigned char, 12> nonce_{};
  std::uint64_t number_ = 0;
};

}  // namespace

void run_cipher(const Options& options, load_client::Run& run) {
  Direction seal(true);
  Direction open(false);
  const std::size_t size = options.load.size;
  const std::size_t at_once = std::max<std::size_t>(1, kBytesAtOnce / size);
  std::vector<unsigned char> record(SSL3_RT_MAX_PLAIN_LENGTH + 1 + kTag);
  run.begin();
  while (!run.ended()) {
    const load_client::Clock::time_point started = load_client::Clock::now();
    std::size_t done = 0;
    for (; done < at_once && run.issue(); ++done) {
      for (std::size_t left = size; left > 0;) {
        const std::size_t part = std::min<std::size_t>(left, SSL3_RT_MAX_PLAIN_LENGTH);
        const int whole = static_cast<int>(part) + 1;  // and the type
        seal.pass(record.data(), whole);
        open.pass(record.data(), whole);
        left -= part;
      }
    }
    run.begin_turn();
    for (; done > 0; --done) run.count_request(started);
  }
  run.finish();
}

}  // namespace tls_load
