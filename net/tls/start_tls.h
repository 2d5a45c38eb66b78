#pragma once

#include <weir/coro/task.h>
#include <weir/net/tcp_connection.h>
#include <weir/net/tls/context.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace weir {

struct StartTlsOptions {
  /// Whom a client's context asks for and verifies, a name or an address; copied by the call.
  std::string_view server_name = {};
};

/// `co_await start_tls(conn, context)` flushes, and from then on speaks TLS on the connection, as
/// the context's side (STARTTLS, RFC 3207). What is unread is taken for TLS: nothing that was
/// slipped in before counts as protected. Nobody may read or send until it has returned. Throws
/// `std::system_error` (`tls_category`, or what broke the connection, or `errc::deadline`), after
/// which the connection is of no use, and `std::errc::broken_pipe` where it was closed or shut down
/// before; `std::invalid_argument` for a client that is to verify a server without a name,
/// `std::logic_error` where somebody reads or TLS is spoken already. Dropping it breaks the
/// connection off.
[[nodiscard]] Task<> start_tls(TcpConnection& connection, const TlsContext& context,
                               StartTlsOptions options = {});

/// What was agreed on.
struct TlsInfo {
  std::string version;                  // "TLSv1.3"
  std::string cipher;                   // "TLS_AES_256_GCM_SHA384"
  std::string alpn;                     // empty: none
  std::string server_name;              // that the client asked for
  bool resumed = false;                 // from an earlier session, without certificates
  std::string peer_subject;             // "CN = example.org" (RFC 2253); empty: no certificate
  std::vector<std::string> peer_names;  // DNS names and addresses of its certificate
};

/// Nothing for a connection without TLS, or before the handshake is done. Loop's thread.
[[nodiscard]] std::optional<TlsInfo> tls_info(const TcpConnection& connection);

}  // namespace weir
