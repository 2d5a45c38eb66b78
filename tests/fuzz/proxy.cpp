// A PROXY header, in any pieces: what is complete was incomplete before and stays so, what is
// malformed stays so, and a header that is made of its client names the same.
#include <weir/net/proxy_header.h>

#include <algorithm>
#include <string>

#include "input.h"

using namespace weir;
using namespace weir::fuzz;
using weir::detail::ProxyHeader;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  const std::uint8_t cuts = input.choice();
  const std::string_view all = input.rest();
  using State = ProxyHeader::State;
  const ProxyHeader whole = ProxyHeader::parse(all);
  require(whole.state != State::incomplete || all.size() < ProxyHeader::kLongest);
  std::string came;
  ProxyHeader last{State::incomplete};
  for (Pieces pieces(all, cuts); !pieces.empty();) {
    came += pieces.next();
    const ProxyHeader now = ProxyHeader::parse(came);
    require(last.state == State::incomplete || now.state == last.state);
    require(last.state != State::complete || now.size == last.size);
    last = now;
  }
  if (!all.empty()) require(last.state == whole.state);
  if (whole.state != State::complete) return 0;
  require(whole.size >= 15 && whole.size <= std::min(all.size(), ProxyHeader::kLongest));
  require(ProxyHeader::parse(all.substr(0, whole.size)).client == whole.client);
  require(ProxyHeader::parse(all.substr(0, whole.size - 1)).state == State::incomplete);
  if (!whole.client) return 0;
  for (const int version : {1, 2}) {
    if (version == 1 && whole.client.is_unix()) continue;
    const std::string made = proxy_header(whole.client, whole.client, version);
    const ProxyHeader again = ProxyHeader::parse(made);
    require(again.state == State::complete && again.size == made.size());
    require(again.client == whole.client);
  }
  return 0;
}
