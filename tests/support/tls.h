#pragma once

#include <weir/tls.h>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "directory.h"
#include "net.h"

/// Certificates that are made while a test runs, and a peer that is OpenSSL alone.
namespace weir::test {

/// A key (Ed25519: its signatures are all of one size; or RSA) and a certificate for it.
class Certificate {
 public:
  struct Options {
    std::string name = "localhost";
    std::string alternative = "DNS:localhost,IP:127.0.0.1,DNS:server.sim";  // as in openssl.cnf
    bool authority = false;
    long from = -3600;  // seconds from now
    long to = 3600;
    std::string usage = {};    // "clientAuth", "serverAuth"; empty: any
    std::size_t rsa_bits = 0;  // 0: Ed25519
    bool sha1 = false;         // where the issuer's key is RSA
  };

  /// Signed by the issuer, or by itself.
  explicit Certificate(const Options& options, const Certificate* issuer = nullptr)
      : key_(options.rsa_bits == 0 ? ::EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519")
                                   : ::EVP_PKEY_Q_keygen(nullptr, nullptr, "RSA", options.rsa_bits),
             &::EVP_PKEY_free),
        certificate_(::X509_new(), &::X509_free) {
    static long serial = 0;
    X509* of = certificate_.get();
    ::X509_set_version(of, 2);
    ::ASN1_INTEGER_set(::X509_get_serialNumber(of), ++serial);
    ::X509_gmtime_adj(::X509_getm_notBefore(of), options.from);
    ::X509_gmtime_adj(::X509_getm_notAfter(of), options.to);
    ::X509_set_pubkey(of, key_.get());
    X509_NAME* name = ::X509_get_subject_name(of);
    ::X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                                 reinterpret_cast<const unsigned char*>(options.name.c_str()), -1,
                                 -1, 0);
    const Certificate& signer = issuer == nullptr ? *this : *issuer;
    ::X509_set_issuer_name(of, ::X509_get_subject_name(signer.certificate_.get()));
    add(NID_basic_constraints, options.authority ? "critical,CA:TRUE" : "CA:FALSE");
    if (!options.alternative.empty()) add(NID_subject_alt_name, options.alternative);
    if (!options.usage.empty()) add(NID_ext_key_usage, options.usage);
    const bool has_digest = ::EVP_PKEY_get_base_id(signer.key_.get()) == EVP_PKEY_RSA;
    const EVP_MD* digest = options.sha1 ? ::EVP_sha1() : ::EVP_sha256();
    if (::X509_sign(of, signer.key_.get(), has_digest ? digest : nullptr) == 0) {
      throw std::runtime_error("X509_sign");
    }
  }

  void write_certificate(const std::string& file, const char* mode = "w") const {
    const auto to = open(file, mode);
    ::PEM_write_X509(to.get(), certificate_.get());
  }
  void write_key(const std::string& file) const {
    const auto to = open(file, "w");
    ::PEM_write_PrivateKey(to.get(), key_.get(), nullptr, nullptr, 0, nullptr, nullptr);
  }

 private:
  static std::unique_ptr<FILE, int (*)(FILE*)> open(const std::string& file, const char* mode) {
    return {std::fopen(file.c_str(), mode), &std::fclose};
  }
  void add(int kind, const std::string& value) {
    X509_EXTENSION* extension = ::X509V3_EXT_conf_nid(nullptr, nullptr, kind, value.c_str());
    if (extension == nullptr) throw std::runtime_error("X509V3_EXT_conf_nid: " + value);
    ::X509_add_ext(certificate_.get(), extension, -1);
    ::X509_EXTENSION_free(extension);
  }

  std::unique_ptr<EVP_PKEY, void (*)(EVP_PKEY*)> key_;
  std::unique_ptr<X509, void (*)(X509*)> certificate_;
};

/// Files of an authority, a server for localhost, and a client, made once for the process.
struct Credentials {
  Directory directory;
  Certificate authority{{.name = "test authority", .alternative = {}, .authority = true}};
  std::string ca_file = directory.file("ca.pem");
  std::string certificate_file = directory.file("server.pem");
  std::string private_key_file = directory.file("server.key");
  std::string client_certificate_file = directory.file("client.pem");
  std::string client_key_file = directory.file("client.key");

  Credentials() {
    authority.write_certificate(ca_file);
    write({}, certificate_file, private_key_file);
    write({.name = "a client", .alternative = "DNS:client.example"}, client_certificate_file,
          client_key_file);
  }
  void write(const Certificate::Options& options, const std::string& certificate,
             const std::string& key) const {
    const Certificate made(options, &authority);
    made.write_certificate(certificate);
    made.write_key(key);
  }

  [[nodiscard]] TlsServerOptions server() const {
    return {.certificate_file = certificate_file, .private_key_file = private_key_file};
  }
  [[nodiscard]] TlsClientOptions client() const { return {.ca_file = ca_file}; }

  static const Credentials& instance() {
    static const Credentials credentials;
    return credentials;
  }
};

inline TlsContext server_context() { return TlsContext::server(Credentials::instance().server()); }
inline TlsContext client_context() { return TlsContext::client(Credentials::instance().client()); }

/// Both ends are weir's, on the current loop, and have agreed: `a` is the client.
inline Task<Linked> tls_pair(TlsContext server, TlsContext client, ConnectionOptions a = {},
                             ConnectionOptions b = {}, int buffer_bytes = 0) {
  Linked linked = link_pair(a, b, buffer_bytes);
  Task<> left = start_tls(linked.a, client, {.server_name = "localhost"});
  Task<> right = start_tls(linked.b, server);
  co_await when_all(std::move(left), std::move(right));
  co_return linked;
}

/// OpenSSL as the peer, whose records go through a plain socket: in a test's own thread.
class TlsPeer {
 public:
  TlsPeer(Peer peer, bool server, const std::function<void(SSL_CTX*)>& set_up = {})
      : peer_(std::move(peer)),
        context_(::SSL_CTX_new(server ? ::TLS_server_method() : ::TLS_client_method()),
                 &::SSL_CTX_free) {
    ::SSL_CTX_set_options(context_.get(), SSL_OP_IGNORE_UNEXPECTED_EOF);
    const Credentials& credentials = Credentials::instance();
    if (server) {
      ::SSL_CTX_use_certificate_file(context_.get(), credentials.certificate_file.c_str(),
                                     SSL_FILETYPE_PEM);
      ::SSL_CTX_use_PrivateKey_file(context_.get(), credentials.private_key_file.c_str(),
                                    SSL_FILETYPE_PEM);
    }
    if (set_up) set_up(context_.get());
    ssl_.reset(::SSL_new(context_.get()));
    in_ = ::BIO_new(::BIO_s_mem());
    out_ = ::BIO_new(::BIO_s_mem());
    ::SSL_set_bio(ssl_.get(), in_, out_);
    if (server) {
      ::SSL_set_accept_state(ssl_.get());
    } else {
      ::SSL_set_connect_state(ssl_.get());
    }
  }

  SSL* ssl() { return ssl_.get(); }
  Peer& peer() { return peer_; }

  /// Throws what failed, as text.
  void shake_hands() {
    run([&] { return ::SSL_do_handshake(ssl_.get()); });
  }
  void send(std::string_view bytes) {
    if (bytes.empty()) return;
    run([&] { return ::SSL_write(ssl_.get(), bytes.data(), static_cast<int>(bytes.size())); });
  }
  /// The records that carry it, unsent.
  std::string sealed(std::string_view bytes) {
    ::SSL_write(ssl_.get(), bytes.data(), static_cast<int>(bytes.size()));
    return take_output();
  }
  std::string receive_exactly(std::size_t count) {
    std::string got(count, '\0');
    for (std::size_t done = 0; done < count;) {
      done += static_cast<std::size_t>(run([&] {
        return ::SSL_read(ssl_.get(), got.data() + done, static_cast<int>(count - done));
      }));
    }
    return got;
  }
  /// Reads to the end. True if the peer said that it was one.
  bool ends(std::string* got = nullptr) {
    char buffer[4096];
    for (;;) {
      const int count = ::SSL_read(ssl_.get(), buffer, sizeof(buffer));
      if (count > 0) {
        if (got != nullptr) got->append(buffer, static_cast<std::size_t>(count));
        continue;
      }
      const int error = ::SSL_get_error(ssl_.get(), count);
      if (error == SSL_ERROR_ZERO_RETURN) return true;
      if (error != SSL_ERROR_WANT_READ || !fill()) return false;
    }
  }
  /// close_notify, without the FIN.
  void say_end() {
    ::SSL_shutdown(ssl_.get());
    flush();
  }
  void flush() {
    if (const std::string bytes = take_output(); !bytes.empty()) peer_.send(bytes);
  }
  std::string take_output() {
    std::string bytes(BIO_ctrl_pending(out_), '\0');
    if (!bytes.empty()) ::BIO_read(out_, bytes.data(), static_cast<int>(bytes.size()));
    return bytes;
  }
  bool fill() {
    const std::string bytes = peer_.receive();
    if (bytes.empty()) return false;
    ::BIO_write(in_, bytes.data(), static_cast<int>(bytes.size()));
    return true;
  }

 private:
  template <class Function>
  int run(Function function) {
    for (;;) {
      ::ERR_clear_error();
      const int result = function();
      const int error = ::SSL_get_error(ssl_.get(), result);
      const unsigned long reason = ::ERR_peek_error();
      flush();
      if (result > 0) return result;
      if (error != SSL_ERROR_WANT_READ) {
        const char* text = ::ERR_reason_error_string(reason);
        throw std::runtime_error(text != nullptr ? text : "SSL error " + std::to_string(error));
      }
      if (!fill()) throw std::runtime_error("the stream ended");
    }
  }

  Peer peer_;
  std::unique_ptr<SSL_CTX, void (*)(SSL_CTX*)> context_;
  std::unique_ptr<SSL, void (*)(SSL*)> ssl_{nullptr, &::SSL_free};
  BIO* in_ = nullptr;
  BIO* out_ = nullptr;
};

}  // namespace weir::test
