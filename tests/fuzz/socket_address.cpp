// SocketAddress::parse: an address or std::invalid_argument; the text of an address is that
// address.
#include <weir/net/socket_address.h>

#include <stdexcept>
#include <string>

#include "input.h"

using namespace weir;
using namespace weir::fuzz;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = Input(data, size).rest();
  SocketAddress address;
  try {
    address = SocketAddress::parse(text);
  } catch (const std::invalid_argument&) {
    return 0;
  }
  require(static_cast<bool>(address));
  require(address.is_ip() != address.is_unix());
  const std::string shown = address.to_string();
  for (const char c : shown) require(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f);
  // Control characters in a path come out escaped, which is another path.
  if (shown.find('\\') != std::string::npos) return 0;
  const SocketAddress again = SocketAddress::parse(shown);
  require(again == address);
  require((again <=> address) == 0);
  require(std::hash<SocketAddress>()(again) == std::hash<SocketAddress>()(address));
  require(again.port() == address.port());
  return 0;
}
