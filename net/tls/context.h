#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace weir {

namespace detail {
class HandshakeFactory;
class TlsFactory;
}  // namespace detail

enum class TlsVersion : std::uint8_t { v1_2, v1_3 };

/// Files are PEM (RFC 7468). They are read when the context is made, and by `reload`.
struct TlsServerOptions {
  /// The server's certificate, then those that lead to the root.
  std::string certificate_file = {};
  std::string private_key_file = {};  // without a pass phrase
  /// Clients must show a certificate that leads to one of these; empty: none is asked for.
  std::string client_ca_file = {};
  /// Protocols (RFC 7301), the preferred first: a client that offers some and none of these is
  /// refused. Empty: the extension is ignored.
  std::vector<std::string> alpn = {};
  TlsVersion minimum_version = TlsVersion::v1_2;
  /// OpenSSL's names, with colons between: those that begin with "TLS_" are of TLS 1.3, the others
  /// of 1.2. Empty: OpenSSL's choice.
  std::string ciphers = {};
  /// From the accept to the call of the handler.
  std::chrono::milliseconds handshake_timeout = std::chrono::seconds(10);
  /// 80 random bytes by which several servers take each other's tickets; empty: this one's own.
  std::string ticket_key_file = {};
  /// Takes a FIN without close_notify for an end as good as any (for what has its own: HTTP with
  /// lengths), where it is `std::errc::connection_aborted` otherwise.
  bool allow_truncation = false;
};

struct TlsClientOptions {
  /// Who is trusted; empty: whom the system trusts.
  std::string ca_file = {};
  /// What it shows a server that asks.
  std::string certificate_file = {};
  std::string private_key_file = {};
  std::vector<std::string> alpn = {};
  /// Whether the server has to prove its name.
  bool verify = true;
  bool allow_truncation = false;
};

/// What one side of TLS (RFC 8446, RFC 5246) needs: certificates, keys, whom to trust. A handle
/// that may be copied; what it stands for is kept by whoever was given it. From any thread.
///
/// Versions below 1.2, compression, renegotiation and early data are not spoken.
class TlsContext {
 public:
  /// Throw `std::system_error` or `std::invalid_argument`, naming the file and what is wrong.
  [[nodiscard]] static TlsContext server(TlsServerOptions options);
  [[nodiscard]] static TlsContext client(TlsClientOptions options = {});

  /// For clients that ask a server for one of these names (SNI, RFC 6066), "*.example.org" among
  /// them, another certificate. The same errors; `std::logic_error` for a client's.
  void add(std::vector<std::string> names, std::string certificate_file,
           std::string private_key_file) const;

  /// Reads all files again: handshakes from now on use them. Throws as the making did, and then
  /// everything is as it was.
  void reload() const;

  /// For weir: what makes its connections.
  [[nodiscard]] std::shared_ptr<detail::HandshakeFactory> factory() const noexcept {
    return factory_;
  }

 private:
  TlsContext(std::shared_ptr<detail::HandshakeFactory> factory,
             std::shared_ptr<detail::TlsFactory> own) noexcept
      : factory_(std::move(factory)), own_(std::move(own)) {}

  std::shared_ptr<detail::HandshakeFactory> factory_;
  std::shared_ptr<detail::TlsFactory> own_;  // the same
};

/// Of errors of TLS; they compare equal to `std::errc::protocol_error`. The message is OpenSSL's
/// reason, or why a certificate was not accepted.
[[nodiscard]] const std::error_category& tls_category() noexcept;

}  // namespace weir
