// SOCKS5: a greeting and a request are read in few steps, never further than they go, and only an
// address or a plain name comes out.
#include <weir/net/socket_address.h>

#include <string>
#include <string_view>

#include "../../examples/socks5/request.h"
#include "input.h"

using namespace weir::fuzz;

namespace {

/// Reads a message as the proxy does; false if the input ends before it.
template <class Missing>
bool take_message(std::string_view& rest, std::string& message, Missing missing) {
  for (int steps = 0;; ++steps) {
    const std::size_t count = missing(std::string_view(message));
    if (count == 0) return true;
    require(steps < 4);
    if (rest.size() < count) return false;
    message += rest.substr(0, count);
    rest.remove_prefix(count);
    require(message.size() <= 2 + 255 + 5);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view rest = Input(data, size).rest();
  std::string greeting;
  if (!take_message(rest, greeting, socks5::missing_of_greeting)) return 0;
  require(greeting.size() == 2 + static_cast<unsigned char>(greeting[1]));
  if (!socks5::acceptable(greeting)) return 0;
  std::string message;
  if (!take_message(rest, message, socks5::missing_of_request)) return 0;
  const auto request = socks5::parse_request(message);
  if (!request) return 0;
  require((request->problem == socks5::Reply::succeeded) == !request->target.empty());
  if (request->target.empty()) return 0;
  const std::size_t colon = request->target.rfind(':');
  require(colon != std::string::npos && colon > 0);
  const std::string host = request->target.substr(0, colon);
  if (message[3] == 3) {
    require(host.find_first_of(":/@[]% ") == std::string::npos);
  } else {
    require(weir::SocketAddress::parse(request->target).is_ip());
  }
  require(socks5::make_reply(request->problem).size() == 10);
  return 0;
}
