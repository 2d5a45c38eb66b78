// TLS for the simulated worlds that speak it.
#include "directory.h"
#include "sim.h"
#include "tls.h"

namespace weir::test {
namespace {

/// Its certificates outlast every world.
class Worlds final : public WorldTls {
 public:
  static const WorldTls& make() {
    static const Worlds made;
    return made;
  }

  [[nodiscard]] const TlsContext& server() const override { return server_; }
  [[nodiscard]] const TlsContext& client() const override { return client_; }
  [[nodiscard]] Task<> start(TcpConnection& connection) const override {
    return start_tls(connection, client_, {.server_name = "server.sim"});
  }

 private:
  Worlds() : Worlds(Directory()) {}
  explicit Worlds(const Directory& directory)
      : server_(made_server(directory)),
        client_(TlsContext::client({.ca_file = directory.file("certificate")})) {}

  static TlsContext made_server(const Directory& directory) {
    const TlsServerOptions files{.certificate_file = directory.file("certificate"),
                                 .private_key_file = directory.file("key")};
    const Certificate own({.to = 1'000'000});
    own.write_certificate(files.certificate_file);
    own.write_key(files.private_key_file);
    return TlsContext::server(files);
  }

  TlsContext server_;
  TlsContext client_;
};

[[maybe_unused]] const WorldTls::Maker known = WorldTls::maker() = &Worlds::make;

}  // namespace
}  // namespace weir::test
