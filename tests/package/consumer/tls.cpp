#include <weir/tls.h>

#include <cstdio>
#include <system_error>

int main() {
  try {
    (void)weir::TlsContext::client({.ca_file = "/nowhere/ca.pem"});
  } catch (const std::system_error&) {
    std::puts("hello");
  }
}
