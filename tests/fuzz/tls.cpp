// The server's side of TLS: whatever comes from the wire, in whatever pieces, before the handshake
// or behind it, it fails or waits; it keeps and says no more than it may, and what comes out of it
// is what the client sent.
#include <weir/net/transform.h>
#include <weir/tls.h>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "input.h"

using namespace weir::fuzz;
using namespace weir::detail;

namespace {

/// A key and a certificate for it, in files.
weir::TlsContext make_server() {
  std::string certificate_file = std::filesystem::temp_directory_path() / "weir-fuzz-XXXXXX";
  std::string key_file = certificate_file;
  std::FILE* certificate_to = ::fdopen(::mkstemp(certificate_file.data()), "w");
  std::FILE* key_to = ::fdopen(::mkstemp(key_file.data()), "w");
  require(certificate_to != nullptr && key_to != nullptr);
  const std::unique_ptr<EVP_PKEY, void (*)(EVP_PKEY*)> key(
      ::EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"), &::EVP_PKEY_free);
  const std::unique_ptr<X509, void (*)(X509*)> certificate(::X509_new(), &::X509_free);
  ::X509_gmtime_adj(::X509_getm_notBefore(certificate.get()), 0);
  ::X509_gmtime_adj(::X509_getm_notAfter(certificate.get()), 1 << 20);
  ::X509_set_pubkey(certificate.get(), key.get());
  require(::X509_sign(certificate.get(), key.get(), nullptr) != 0);
  ::PEM_write_X509(certificate_to, certificate.get());
  ::PEM_write_PrivateKey(key_to, key.get(), nullptr, nullptr, 0, nullptr, nullptr);
  std::fclose(certificate_to);
  std::fclose(key_to);
  weir::TlsContext made = weir::TlsContext::server(
      {.certificate_file = certificate_file, .private_key_file = key_file, .alpn = {"a", "bc"}});
  ::unlink(certificate_file.c_str());
  ::unlink(key_file.c_str());
  return made;
}

/// A connection without its wire.
class Server final : public Inbox::Source {
 public:
  Server() : inbox_(*this, 1 << 20) {
    static const weir::TlsContext context = make_server();
    handshake_ = context.factory()->make("");
  }

  /// Gives what it says to that.
  std::string exchange(std::string_view bytes) {
    if (failed_ || handshake_->full()) return {};
    if (!bytes.empty()) {
      BufferRef buffer = make_buffer(bytes.size());
      std::memcpy(buffer->data(), bytes.data(), bytes.size());
      const std::byte* data = buffer->data();
      failed_ = handshake_->receive(std::move(buffer), data, bytes.size(), inbox_) != 0;
    }
    if (!failed_ && !handshake_->done() && handshake_->has_work()) {
      failed_ = handshake_->work(inbox_) != 0;
    }
    require(handshake_->kept() <= 17 << 10);
    SegmentQueue wire;
    (void)handshake_->send({}, false, wire);
    std::string said;
    for (; !wire.empty(); wire.pop_front()) {
      said.append(reinterpret_cast<const char*>(wire.front().data()), wire.front().size());
    }
    require(said.size() <= 128 << 10);
    while (weir::Chunk chunk = inbox_.take_some()) got_ += chunk.view();
    return said;
  }

  [[nodiscard]] bool done() const { return handshake_->done(); }
  [[nodiscard]] bool failed() const { return failed_; }
  [[nodiscard]] const std::string& got() const { return got_; }

 private:
  void input_wanted() noexcept override {}

  Inbox inbox_;
  std::unique_ptr<Handshake> handshake_;
  bool failed_ = false;
  std::string got_;
};

class Client {
 public:
  explicit Client(bool old) : ssl_(::SSL_new(context()), &::SSL_free) {
    if (old) ::SSL_set_max_proto_version(ssl_.get(), TLS1_2_VERSION);
    in_ = ::BIO_new(::BIO_s_mem());
    out_ = ::BIO_new(::BIO_s_mem());
    ::SSL_set_bio(ssl_.get(), in_, out_);
    ::SSL_set_connect_state(ssl_.get());
  }

  std::string exchange(std::string_view bytes) {
    if (!bytes.empty()) ::BIO_write(in_, bytes.data(), static_cast<int>(bytes.size()));
    (void)::SSL_do_handshake(ssl_.get());
    return output();
  }
  std::string sealed(std::string_view bytes) {
    if (!bytes.empty()) ::SSL_write(ssl_.get(), bytes.data(), static_cast<int>(bytes.size()));
    return output();
  }
  std::string key_update() {
    (void)::SSL_key_update(ssl_.get(), SSL_KEY_UPDATE_REQUESTED);
    (void)::SSL_do_handshake(ssl_.get());
    return output();
  }

 private:
  static SSL_CTX* context() {
    static SSL_CTX* const made = ::SSL_CTX_new(::TLS_client_method());
    return made;
  }
  std::string output() {
    std::string bytes(BIO_ctrl_pending(out_), '\0');
    if (!bytes.empty()) ::BIO_read(out_, bytes.data(), static_cast<int>(bytes.size()));
    ::ERR_clear_error();
    return bytes;
  }

  std::unique_ptr<SSL, void (*)(SSL*)> ssl_;
  BIO* in_ = nullptr;
  BIO* out_ = nullptr;
};

void feed(Server& server, std::string_view wire, std::uint8_t seed) {
  for (Pieces pieces(wire, seed); !pieces.empty();) (void)server.exchange(pieces.next());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  const std::uint8_t kind = input.choice();
  const std::uint8_t seed = input.choice();
  const std::uint8_t damage = input.choice();
  const std::string_view text = input.rest();
  Server server;
  if (kind % 4 == 0) {  // instead of a client
    feed(server, text, seed);
    require(server.got().empty());
    return 0;
  }
  Client client((kind & 4) != 0);
  std::string said = client.exchange({});
  if (kind % 4 == 1) {  // a ClientHello in which some bytes are others
    for (std::size_t i = 0; i < text.size() && i + damage < said.size(); ++i) {
      said[i + damage] = static_cast<char>(said[i + damage] ^ text[i]);
    }
    feed(server, said, seed);
    require(server.got().empty());
    return 0;
  }
  while (!said.empty()) said = client.exchange(server.exchange(said));
  require(server.done() && !server.failed());
  if (kind % 4 == 2) {  // records of nobody
    feed(server, text, seed);
    require(server.got().empty());
    return 0;
  }
  std::string wire = client.sealed(text.substr(0, text.size() / 2));
  if ((kind & 8) != 0) wire += client.key_update();
  wire += client.sealed(text.substr(text.size() / 2));
  const bool damaged = damage != 0 && damage < wire.size();
  if (damaged) wire[damage] = static_cast<char>(~wire[damage]);
  feed(server, wire, seed);
  require(text.starts_with(server.got()));
  if (!damaged) require(server.got().size() == text.size() && !server.failed());
  return 0;
}
