#pragma once

#include <weir/weir.h>

#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>

#ifdef WEIR_EXAMPLES_WITH_TLS
#include <weir/tls.h>

#include <optional>
#endif

/// What `--tls-certificate` and `--tls-key` name; SIGHUP has them read again. Without either there
/// is no TLS.
class TlsFiles {
 public:
  TlsFiles(const std::string& certificate, const std::string& key) {
    if (certificate.empty() && key.empty()) return;
#ifdef WEIR_EXAMPLES_WITH_TLS
    weir::TlsServerOptions options;
    options.certificate_file = certificate;
    options.private_key_file = key;
    context_ = weir::TlsContext::server(options);
#else
    throw std::invalid_argument("--tls-certificate: this program was built without OpenSSL");
#endif
  }

#ifdef WEIR_EXAMPLES_WITH_TLS
  [[nodiscard]] const weir::TlsContext* context() const { return context_ ? &*context_ : nullptr; }
  void reload_with(weir::TcpServer& server) {
    if (context_) server.loop().spawn(reload_upon_signals(*context_));
  }

 private:
  static weir::Task<> reload_upon_signals(weir::TlsContext context) {
    weir::Signals hang_up(SIGHUP);
    for (;;) {
      (void)co_await hang_up.next();
      try {
        context.reload();
      } catch (const std::exception& error) {
        std::fprintf(stderr, "%s; what was in force stays\n", error.what());
      }
    }
  }

  std::optional<weir::TlsContext> context_;
#else
  [[nodiscard]] static const weir::TlsContext* context() { return nullptr; }
  static void reload_with(weir::TcpServer& /*server*/) {}
#endif
};
