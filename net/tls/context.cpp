#include <weir/net/tls/context.h>
#include <weir/net/tls/factory.h>

#include <utility>

namespace weir {

TlsContext TlsContext::server(TlsServerOptions options) {
  auto factory = std::make_shared<detail::TlsFactory>(std::move(options));
  return {factory, factory};
}

TlsContext TlsContext::client(TlsClientOptions options) {
  auto factory = std::make_shared<detail::TlsFactory>(std::move(options));
  return {factory, factory};
}

void TlsContext::add(std::vector<std::string> names, std::string certificate_file,
                     std::string private_key_file) const {
  own_->add({std::move(names), std::move(certificate_file), std::move(private_key_file)});
}

void TlsContext::reload() const { own_->reload(); }

}  // namespace weir
