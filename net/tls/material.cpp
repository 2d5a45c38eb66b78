#include <weir/net/tls/material.h>
#include <weir/net/tls/ticket_keys.h>

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <system_error>

namespace weir::detail {
namespace {

constexpr std::size_t kMostProtocol = 255;

std::string read_file(const std::string& name, const char* what) {
  errno = 0;
  std::ifstream file(name, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (file.is_open() && !file.bad() && !text.empty()) return text;
  const int error = errno;
  throw std::system_error(error != 0 ? error : ENODATA, std::generic_category(),
                          "weir: TlsContext: the " + std::string(what) + " " +
                              (name.empty() ? "(no file given)" : name) + " cannot be read");
}

BioPointer bio_of(const std::string& text) {
  BioPointer bio(::BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
  if (bio == nullptr) throw std::bad_alloc();
  return bio;
}

/// Without one OpenSSL asks on the terminal.
int no_pass_phrase(char* /*to*/, int /*size*/, int /*writing*/, void* /*data*/) { return -1; }

void check(bool ok, const std::string& what) {
  if (!ok) throw_openssl_failure("weir: TlsContext: " + what);
}

Material::Pem read(const Identity& identity) {
  Material::Pem pem;
  pem.identity = identity;
  pem.certificates = read_file(identity.certificate_file, "certificate");
  pem.key = read_file(identity.private_key_file, "private key");
  return pem;
}

void use(SSL_CTX* context, const Material::Pem& pem) {
  const std::string& file = pem.identity.certificate_file;
  const BioPointer certificates = bio_of(pem.certificates);
  const X509Pointer own(
      ::PEM_read_bio_X509_AUX(certificates.get(), nullptr, &no_pass_phrase, nullptr));
  check(own != nullptr, file + " holds no certificate in PEM");
  check(::SSL_CTX_use_certificate(context, own.get()) == 1,
        "the certificate " + file + " is not accepted");
  while (X509* next = ::PEM_read_bio_X509(certificates.get(), nullptr, &no_pass_phrase, nullptr)) {
    if (::SSL_CTX_add0_chain_cert(context, next) == 1) continue;
    ::X509_free(next);
    check(false, "the chain in " + file + " is not accepted");
  }
  const unsigned long end = ::ERR_peek_last_error();
  check(ERR_GET_LIB(end) == ERR_LIB_PEM && ERR_GET_REASON(end) == PEM_R_NO_START_LINE,
        "the chain in " + file + " is damaged");
  forget_errors();
  const BioPointer text = bio_of(pem.key);
  const KeyPointer key(::PEM_read_bio_PrivateKey(text.get(), nullptr, &no_pass_phrase, nullptr));
  check(key != nullptr,
        pem.identity.private_key_file + " holds no private key in PEM that needs no pass phrase");
  check(::SSL_CTX_use_PrivateKey(context, key.get()) == 1 &&
            ::SSL_CTX_check_private_key(context) == 1,
        "the private key " + pem.identity.private_key_file + " does not belong to " + file);
}

StorePointer store_of(const std::string& file, const char* what) {
  const std::string text = read_file(file, what);
  const BioPointer bio = bio_of(text);
  StorePointer store(::X509_STORE_new());
  if (store == nullptr) throw std::bad_alloc();
  int count = 0;
  while (X509* next = ::PEM_read_bio_X509_AUX(bio.get(), nullptr, &no_pass_phrase, nullptr)) {
    const X509Pointer certificate(next);
    check(::X509_STORE_add_cert(store.get(), next) == 1, file + " is not accepted");
    ++count;
  }
  check(count > 0, file + " holds no certificate in PEM");
  forget_errors();
  return store;
}

SslContextPointer new_context(bool server, TlsVersion minimum) {
  SslContextPointer context(::SSL_CTX_new(server ? ::TLS_server_method() : ::TLS_client_method()));
  if (context == nullptr) throw_openssl_failure("weir: TlsContext: OpenSSL gives no context");
  SSL_CTX* of = context.get();
  ::SSL_CTX_set_min_proto_version(of,
                                  minimum == TlsVersion::v1_3 ? TLS1_3_VERSION : TLS1_2_VERSION);
  ::SSL_CTX_set_options(of, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
  ::SSL_CTX_set_mode(of, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                             SSL_MODE_ENABLE_PARTIAL_WRITE);
  ::SSL_CTX_set_max_early_data(of, 0);
  ::SSL_CTX_set_default_passwd_cb(of, &no_pass_phrase);
  set_callbacks(of, server);
  return context;
}

void set_ciphers(SSL_CTX* context, const std::string& ciphers) {
  std::string of_1_3;
  std::string others;
  for (std::size_t from = 0; from < ciphers.size();) {
    const std::size_t to = std::min(ciphers.find(':', from), ciphers.size());
    const std::string name = ciphers.substr(from, to - from);
    std::string& list = name.starts_with("TLS_") ? of_1_3 : others;
    if (!list.empty()) list += ':';
    list += name;
    from = to + 1;
  }
  const bool ok = (of_1_3.empty() || ::SSL_CTX_set_ciphersuites(context, of_1_3.c_str()) == 1) &&
                  (others.empty() || ::SSL_CTX_set_cipher_list(context, others.c_str()) == 1);
  if (ok) return;
  forget_errors();
  throw std::invalid_argument("weir: TlsServerOptions::ciphers: OpenSSL does not know all of \"" +
                              ciphers + "\"");
}

void set_trust(SSL_CTX* context, const Material& material) {
  if (material.trusted == nullptr) return;
  ::SSL_CTX_set1_cert_store(context, material.trusted.get());
}

SslContextPointer make_server(const Material& material, const Material::Pem& pem,
                              const TlsServerOptions& options) {
  SslContextPointer context = new_context(true, options.minimum_version);
  SSL_CTX* of = context.get();
  use(of, pem);
  set_ciphers(of, options.ciphers);
  set_trust(of, material);
  if (material.trusted != nullptr) {
    ::SSL_CTX_set_verify(of, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
    const STACK_OF(X509_OBJECT)* trusted = ::X509_STORE_get0_objects(material.trusted.get());
    for (int i = 0; i < sk_X509_OBJECT_num(trusted); ++i) {
      X509* certificate = ::X509_OBJECT_get0_X509(sk_X509_OBJECT_value(trusted, i));
      if (certificate != nullptr) (void)::SSL_CTX_add_client_CA(of, certificate);
    }
  }
  // Tickets hold the sessions: there is no cache that would have to be shared.
  ::SSL_CTX_set_session_cache_mode(of, SSL_SESS_CACHE_OFF);
  static constexpr unsigned char kIdentity[] = "weir";
  ::SSL_CTX_set_session_id_context(of, kIdentity, sizeof(kIdentity) - 1);
  return context;
}

char lower(char c) noexcept { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

}  // namespace

Material::Pem::~Pem() { ::OPENSSL_cleanse(key.data(), key.size()); }

SSL_CTX* Contexts::find(std::string_view name) const noexcept {
  const auto same = [](std::string_view a, std::string_view b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                      [](char x, char y) { return lower(x) == lower(y); });
  };
  const std::size_t dot = name.find('.');
  SSL_CTX* wild = nullptr;
  for (const auto& [known, context] : by_name) {
    if (same(known, name)) return context;
    // One label, no more (RFC 6125, 6.4.3).
    if (known.starts_with("*.") && dot != std::string_view::npos && dot > 0 &&
        same(std::string_view(known).substr(1), name.substr(dot))) {
      wild = context;
    }
  }
  return wild;
}

std::string alpn_list(const std::vector<std::string>& protocols) {
  std::string list;
  for (const std::string& name : protocols) {
    if (name.empty() || name.size() > kMostProtocol) {
      throw std::invalid_argument("weir: the ALPN protocol \"" + name + "\" has " +
                                  std::to_string(name.size()) + " bytes; it must have 1 to 255");
    }
    list += static_cast<char>(name.size());
    list += name;
  }
  return list;
}

std::shared_ptr<const Material> load(const TlsServerOptions& options,
                                     const std::vector<Identity>& more) {
  auto material = std::make_shared<Material>();
  material->identities.push_back(read({{}, options.certificate_file, options.private_key_file}));
  for (const Identity& identity : more) material->identities.push_back(read(identity));
  if (!options.client_ca_file.empty()) {
    material->trusted = store_of(options.client_ca_file, "file of trusted certificates");
  }
  if (!options.ticket_key_file.empty()) {
    const std::string key = read_file(options.ticket_key_file, "ticket key");
    if (key.size() != kTicketKey) {
      throw std::invalid_argument("weir: TlsContext: the ticket key " + options.ticket_key_file +
                                  " has " + std::to_string(key.size()) + " bytes; it must have " +
                                  std::to_string(kTicketKey));
    }
    material->ticket_key.assign(key.begin(), key.end());
  }
  return material;
}

std::shared_ptr<const Material> load(const TlsClientOptions& options) {
  auto material = std::make_shared<Material>();
  if (!options.certificate_file.empty() || !options.private_key_file.empty()) {
    material->identities.push_back(read({{}, options.certificate_file, options.private_key_file}));
  }
  if (!options.ca_file.empty()) {
    material->trusted = store_of(options.ca_file, "file of trusted certificates");
  } else if (options.verify) {
    material->trusted.reset(::X509_STORE_new());
    if (material->trusted == nullptr) throw std::bad_alloc();
    check(::X509_STORE_set_default_paths(material->trusted.get()) == 1,
          "the system's trusted certificates cannot be read");
    forget_errors();
  }
  return material;
}

std::shared_ptr<const Contexts> make_contexts(const Material& material,
                                              const TlsServerOptions& options) {
  forget_errors();
  auto contexts = std::make_shared<Contexts>();
  contexts->main = make_server(material, material.identities.front(), options);
  for (std::size_t i = 1; i < material.identities.size(); ++i) {
    const Material::Pem& pem = material.identities[i];
    contexts->others.push_back(make_server(material, pem, options));
    for (const std::string& name : pem.identity.names) {
      contexts->by_name.emplace_back(name, contexts->others.back().get());
    }
  }
  return contexts;
}

std::shared_ptr<const Contexts> make_contexts(const Material& material,
                                              const TlsClientOptions& options) {
  forget_errors();
  auto contexts = std::make_shared<Contexts>();
  contexts->main = new_context(false, TlsVersion::v1_2);
  SSL_CTX* of = contexts->main.get();
  if (!material.identities.empty()) use(of, material.identities.front());
  set_trust(of, material);
  const std::string protocols = alpn_list(options.alpn);
  if (!protocols.empty() &&
      ::SSL_CTX_set_alpn_protos(of, reinterpret_cast<const unsigned char*>(protocols.data()),
                                static_cast<unsigned>(protocols.size())) != 0) {
    throw std::bad_alloc();
  }
  ::SSL_CTX_set_session_cache_mode(of, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  return contexts;
}

}  // namespace weir::detail
