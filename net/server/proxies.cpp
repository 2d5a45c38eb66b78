#include <weir/net/connection.h>
#include <weir/net/server/proxies.h>

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <stdexcept>
#include <system_error>
#include <utility>

namespace weir::detail {
namespace {

constexpr std::array<unsigned char, 12> kMapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

[[noreturn]] void reject(std::string_view text, const char* why) {
  std::string shown(text.substr(0, 128));
  for (char& c : shown) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  throw std::invalid_argument("weir: ServerOptions::proxy_trusted has \"" + shown + "\"; " + why);
}

}  // namespace

TrustedProxies::TrustedProxies(const std::vector<std::string>& networks) {
  for (const std::string& text : networks) {
    if (text == "unix:") {
      local_ = true;
    } else {
      networks_.push_back(parse(text));
    }
  }
}

TrustedProxies::Network TrustedProxies::parse(const std::string& text) {
  const std::size_t slash = text.find('/');
  const std::string host = text.substr(0, slash);
  Network network{};
  network.is_v4 = host.find(':') == std::string::npos;
  std::copy(kMapped.begin(), kMapped.end(), network.host.begin());
  unsigned char* to = network.host.data() + (network.is_v4 ? kMapped.size() : 0);
  if (host.find('\0') != std::string::npos ||
      ::inet_pton(network.is_v4 ? AF_INET : AF_INET6, host.c_str(), to) != 1) {
    reject(text, "a network is an address and how many bits of it count: 10.0.0.0/8, fd00::/8");
  }
  const unsigned most = network.is_v4 ? 32 : 128;
  network.bits = most;
  if (slash != std::string::npos) {
    const char* begin = text.data() + slash + 1;
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(begin, end, network.bits);
    if (begin == end || error != std::errc() || stop != end || network.bits > most) {
      reject(text, network.is_v4 ? "what follows the slash must be 0 to 32"
                                 : "what follows the slash must be 0 to 128");
    }
  }
  if (network.is_v4) network.bits += 8 * kMapped.size();
  return network;
}

bool TrustedProxies::contain(const SocketAddress& peer) const noexcept {
  if (peer.is_unix()) return local_;
  if (!peer.is_ip()) return false;
  std::array<unsigned char, 16> host{};
  const unsigned char* raw = peer.raw().bytes;
  bool is_v4 = peer.family() == AF_INET;
  if (is_v4) {
    std::copy(kMapped.begin(), kMapped.end(), host.begin());
    std::memcpy(host.data() + kMapped.size(), raw + offsetof(sockaddr_in, sin_addr), 4);
  } else {
    std::memcpy(host.data(), raw + offsetof(sockaddr_in6, sin6_addr), host.size());
    is_v4 = std::equal(kMapped.begin(), kMapped.end(), host.begin());
  }
  return std::any_of(networks_.begin(), networks_.end(), [&](const Network& network) {
    if (network.is_v4 != is_v4) return false;
    const std::size_t whole = network.bits / 8;
    if (!std::equal(host.begin(), host.begin() + static_cast<std::ptrdiff_t>(whole),
                    network.host.begin())) {
      return false;
    }
    const unsigned rest = network.bits % 8;
    return rest == 0 || ((host[whole] ^ network.host[whole]) >> (8 - rest)) == 0;
  });
}

Failure ProxyGreeting::receive(BufferRef /*buffer*/, const std::byte* data, std::size_t size,
                               Inbox& /*inbox*/) {
  held_.append(reinterpret_cast<const char*>(data), size);
  news.set();
  return 0;
}

Failure ProxyGreeting::receive_end(Inbox& /*inbox*/) {
  ended_ = true;
  news.set();
  return 0;
}

std::size_t ProxyGreeting::send(std::span<const Slice> /*plain*/, bool /*ending*/,
                                SegmentQueue& /*wire*/) {
  return 0;
}

void ProxyGreeting::over(Failure failure) noexcept {
  failure_ = failure;
  news.set();
}

Failure ProxyGreeting::work(Inbox& /*inbox*/) {
  if (failure_ != 0) return failure_;
  looked_at_ = held_.size();
  header_ = ProxyHeader::parse(held_);
  const bool cut_short = ended_ && header_.state == ProxyHeader::State::incomplete;
  if (header_.state == ProxyHeader::State::malformed || cut_short) failure_ = EPROTO;
  return failure_;
}

void ProxyGreeting::throw_failure() const {
  if (failure_ != EPROTO) {
    throw std::system_error(code_of(failure_), "weir: it ended before its PROXY header");
  }
  throw std::system_error(code_of(failure_), held_.empty()
                                                 ? "weir: it ended without a PROXY header"
                                                 : "weir: it does not begin with a PROXY header");
}

void ProxyGreeting::leave(Connection& connection) {
  const std::size_t left = held_.size() - header_.size;
  if (left > 0 && !connection.inbox().at_end()) {
    BufferRef rest = make_buffer(left);
    std::memcpy(rest->data(), held_.data() + header_.size, left);
    const std::byte* data = rest->data();
    connection.inbox().push(std::move(rest), data, left);
  }
  connection.transforming().end();  // this goes
}

}  // namespace weir::detail
