#pragma once

#include <weir/net/tls/context.h>
#include <weir/net/tls/openssl.h>

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace weir::detail {

/// A certificate and its key, for all names or for some.
struct Identity {
  std::vector<std::string> names;
  std::string certificate_file;
  std::string private_key_file;
};

/// What contexts are made of: the contents of all files, as they were at one time. Immutable.
struct Material {
  struct Pem {
    Pem() = default;
    Pem(const Pem&) = delete;
    Pem& operator=(const Pem&) = delete;
    Pem(Pem&&) = default;
    Pem& operator=(Pem&&) = delete;
    ~Pem();
    Identity identity;
    std::string certificates;
    std::string key;
  };

  std::vector<Pem> identities;            // the first for all names
  StorePointer trusted;                   // nullptr: nobody
  std::vector<unsigned char> ticket_key;  // of the file, if there is one
};

/// The OpenSSL contexts of one thread: 3.0 scales badly over threads that share one.
struct Contexts {
  SslContextPointer main;
  std::vector<std::pair<std::string, SSL_CTX*>> by_name;
  std::vector<SslContextPointer> others;

  [[nodiscard]] SSL_CTX* find(std::string_view name) const noexcept;
};

/// Both throw what names the file and what is wrong.
[[nodiscard]] std::shared_ptr<const Material> load(const TlsServerOptions& options,
                                                   const std::vector<Identity>& more);
[[nodiscard]] std::shared_ptr<const Material> load(const TlsClientOptions& options);

[[nodiscard]] std::shared_ptr<const Contexts> make_contexts(const Material& material,
                                                            const TlsServerOptions& options);
[[nodiscard]] std::shared_ptr<const Contexts> make_contexts(const Material& material,
                                                            const TlsClientOptions& options);

/// Of OpenSSL's callbacks, defined where the connections are.
void set_callbacks(SSL_CTX* context, bool server);
/// The protocols as they go over the wire. Throws `std::invalid_argument`.
[[nodiscard]] std::string alpn_list(const std::vector<std::string>& protocols);

}  // namespace weir::detail
