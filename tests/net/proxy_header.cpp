#include <weir/net/proxy_header.h>
#include <weir/net/server/proxies.h>

#include <doctest/doctest.h>

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

using namespace weir;
using weir::detail::ProxyHeader;
using weir::detail::TrustedProxies;

namespace {

using State = ProxyHeader::State;

std::string client_of(std::string_view bytes) {
  const ProxyHeader header = ProxyHeader::parse(bytes);
  if (header.state == State::malformed) return "malformed";
  if (header.state == State::incomplete) return "incomplete";
  if (header.size != bytes.size()) return "of another size";
  return header.client ? header.client.to_string() : "nobody";
}

/// Version 2: command, family and protocol, and what follows the length.
std::string binary(int command, int kind, std::string_view rest, std::size_t length) {
  std::string header("\r\n\r\n\0\r\nQUIT\n", 12);
  header += {static_cast<char>(command), static_cast<char>(kind), static_cast<char>(length >> 8),
             static_cast<char>(length)};
  return header.append(rest);
}
std::string binary(int command, int kind, std::string_view rest = {}) {
  return binary(command, kind, rest, rest.size());
}

const std::string kV4("\x01\x02\x03\x04\x05\x06\x07\x08\x10\x01\x00\x50", 12);

}  // namespace

TEST_CASE("a PROXY header of version 1 names its client") {
  CHECK(client_of("PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\r\n") == "1.2.3.4:1000");
  CHECK(client_of("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n") ==
        "255.255.255.255:65535");
  CHECK(client_of("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n") == "0.0.0.0:0");
  CHECK(client_of("PROXY TCP6 2001:db8::1 ::1 1000 80\r\n") == "[2001:db8::1]:1000");
  CHECK(client_of("PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
                  "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n") ==
        "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535");
  CHECK(client_of("PROXY UNKNOWN\r\n") == "nobody");
  CHECK(client_of("PROXY UNKNOWN whatever  there is\x01\r\n") == "nobody");
  CHECK(client_of("PROXY UNKNOWN " + std::string(107 - 16, 'f') + "\r\n") == "nobody");
}

TEST_CASE("what is no PROXY header of version 1 is malformed") {
  for (const char* line : {"PROXY TCP4 1.2.3.4 5.6.7.8 1000\r\n",
                           "PROXY TCP4 1.2.3.4 5.6.7.8 1000 80 \r\n",
                           "PROXY TCP4  1.2.3.4 5.6.7.8 1000 80\r\n",
                           "PROXY TCP4 1.2.3.4 5.6.7.8 1000 80 1\r\n",
                           "PROXY TCP4 1.2.3.4 5.6.7.8 01000 80\r\n",
                           "PROXY TCP4 1.2.3.4 5.6.7.8 1000 65536\r\n",
                           "PROXY TCP4 1.2.3.4 5.6.7.8 -1 80\r\n",
                           "PROXY TCP4 1.2.3.4 5.6.7.8 +1 80\r\n",
                           "PROXY TCP4 1.2.3 5.6.7.8 1000 80\r\n",
                           "PROXY TCP4 1.2.3.04 5.6.7.8 1000 80\r\n",
                           "PROXY TCP4 ::1 ::1 1000 80\r\n",
                           "PROXY TCP6 1.2.3.4 5.6.7.8 1000 80\r\n",
                           "PROXY TCP6 fe80::1%lo ::1 1000 80\r\n",
                           "PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\n",
                           "PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\r\r\n",
                           "PROXY TCP4 1.2.3.4\r5.6.7.8 1000 80\r\n",
                           "PROXY UNKNOWNS\r\n",
                           "PROXY unknown\r\n",
                           "PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
                           "PROXY \r\n",
                           "PROXY\r\n",
                           "PROXZ",
                           "proxy TCP4",
                           "GET / HTTP/1.1\r\n",
                           " PROXY TCP4",
                           "\x16\x03\x01"}) {
    CAPTURE(line);
    CHECK(ProxyHeader::parse(line).state == State::malformed);
  }
  CHECK(ProxyHeader::parse(std::string_view("PROXY TCP4 1.2.3.4\0 5.6.7.8 1 2\r\n", 33)).state ==
        State::malformed);
  // A line of more than 107 bytes, whether or not its end is there.
  const std::string open = "PROXY UNKNOWN " + std::string(107 - 14, 'f');
  CHECK(ProxyHeader::parse(open).state == State::malformed);
  CHECK(ProxyHeader::parse(open + "\r\n").state == State::malformed);
  CHECK(ProxyHeader::parse(open.substr(0, 106) + "\r\n").state == State::malformed);
}

TEST_CASE("a PROXY header of version 2 names its client") {
  CHECK(client_of(binary(0x21, 0x11, kV4)) == "1.2.3.4:4097");
  CHECK(client_of(binary(0x21, 0x21,
                         std::string(15, '\0') + "\x01" + std::string(16, '\1') +
                             std::string("\x10\x01\x00\x50", 4))) == "[::1]:4097");
  const auto paths = [](std::string_view path) {
    std::string both(216, '\0');
    return both.replace(0, path.size(), path);
  };
  CHECK(client_of(binary(0x21, 0x31, paths("/run/client"))) == "unix:/run/client");
  CHECK(client_of(binary(0x21, 0x31, paths(std::string(108, 'x')))) ==
        "unix:" + std::string(108, 'x'));
  CHECK(client_of(binary(0x21, 0x31, paths(std::string_view("\0name", 5)))) == "unix:@name");
  CHECK(client_of(binary(0x21, 0x31, paths(""))) == "unix:");
  // What follows the addresses is skipped, as far as the length goes.
  CHECK(client_of(binary(0x21, 0x11,
                         kV4 + std::string("\x03\x00\x04"
                                           "abcd",
                                           7))) == "1.2.3.4:4097");
  CHECK(client_of(binary(0x21, 0x11, kV4 + std::string(4096 - 16 - 12, '\x04'))) == "1.2.3.4:4097");
}

TEST_CASE("a PROXY header of version 2 of a connection without a client it knows names nobody") {
  CHECK(client_of(binary(0x20, 0x00)) == "nobody");        // LOCAL
  CHECK(client_of(binary(0x20, 0x11, kV4)) == "nobody");   // and what it says besides
  CHECK(client_of(binary(0x20, 0x11, "x")) == "nobody");   // of which nothing has to be right
  CHECK(client_of(binary(0x20, 0xff, "xy")) == "nobody");  //
  CHECK(client_of(binary(0x21, 0x00)) == "nobody");        // UNSPEC
  CHECK(client_of(binary(0x21, 0x00, "whatever")) == "nobody");
  for (const int kind : {0x01, 0x02, 0x10, 0x20, 0x30, 0x12, 0x22, 0x32}) {  // UDP and its like
    CHECK(client_of(binary(0x21, kind, std::string(216, 'x'))) == "nobody");
  }
}

TEST_CASE("what is no PROXY header of version 2 is malformed, as soon as it shows") {
  const auto malformed = [](const std::string& bytes) {
    return ProxyHeader::parse(bytes).state == State::malformed;
  };
  for (const int command : {0x10, 0x11, 0x22, 0x2f, 0x31, 0x00}) {
    CHECK(malformed(binary(command, 0x11, kV4)));
    CHECK(malformed(binary(command, 0x11, kV4).substr(0, 13)));
  }
  for (const int kind : {0x41, 0xf1, 0x13, 0x1f, 0x40, 0x03}) {
    CHECK(malformed(binary(0x21, kind, std::string(216, 'x'))));
    CHECK(malformed(binary(0x21, kind, {}, 216)));
  }
  CHECK(malformed(binary(0x21, 0x11, kV4.substr(1))));
  CHECK(malformed(binary(0x21, 0x21, std::string(35, 'x'))));
  CHECK(malformed(binary(0x21, 0x31, std::string(215, 'x'))));
  CHECK(malformed(binary(0x21, 0x11, {}, 65535)));
  CHECK(malformed(binary(0x20, 0x00, {}, 4096 - 15)));
  CHECK(ProxyHeader::parse(binary(0x20, 0x00, {}, 4096 - 16)).state == State::incomplete);
  CHECK(malformed("\r\n\r\n\r"));
}

TEST_CASE("a part of a PROXY header is incomplete, and what follows it is not looked at") {
  const SocketAddress client = SocketAddress::parse("192.0.2.1:5000");
  const SocketAddress server = SocketAddress::parse("192.0.2.2:443");
  for (const std::string& header : std::vector<std::string>{
           proxy_header(client, server, 1), proxy_header(client, server), binary(0x20, 0, "local"),
           binary(0x21, 0x11, kV4 + std::string(300, '\0')), "PROXY UNKNOWN\r\n"}) {
    for (std::size_t size = 0; size < header.size(); ++size) {
      CHECK(ProxyHeader::parse(header.substr(0, size)).state == State::incomplete);
    }
    for (const char* behind : {"", "PROXY ", "\r\n", "\x16\x03\x01"}) {
      const ProxyHeader got = ProxyHeader::parse(header + behind);
      CHECK(got.state == State::complete);
      CHECK(got.size == header.size());
    }
  }
}

TEST_CASE("proxy_header makes what is parsed to the same client") {
  const auto at = [](const char* text) { return SocketAddress::parse(text); };
  CHECK(proxy_header(at("1.2.3.4:5"), at("6.7.8.9:10"), 1) ==
        "PROXY TCP4 1.2.3.4 6.7.8.9 5 10\r\n");
  CHECK(proxy_header(at("[::1]:5"), at("[::2]:10"), 1) == "PROXY TCP6 ::1 ::2 5 10\r\n");
  CHECK(proxy_header(at("1.2.3.4:5"), at("[::2]:10"), 1) ==
        "PROXY TCP6 ::ffff:1.2.3.4 ::2 5 10\r\n");
  CHECK(proxy_header(at("1.2.3.4:4097"), at("5.6.7.8:80")) == binary(0x21, 0x11, kV4));
  CHECK(proxy_header(at("unix:/a"), at("unix:/b"), 1) == "PROXY UNKNOWN\r\n");
  CHECK(proxy_header({}, at("5.6.7.8:80"), 1) == "PROXY UNKNOWN\r\n");
  CHECK(proxy_header(at("1.2.3.4:4097"), {}) == binary(0x21, 0));
  CHECK(proxy_header(at("1.2.3.4:4097"), at("unix:/b")) == binary(0x21, 0));
  for (const char* client : {"1.2.3.4:5", "[2001:db8::7]:65535", "[::ffff:9.8.7.6]:1"}) {
    for (const char* server : {"10.0.0.1:443", "[::1]:443"}) {
      for (const int version : {1, 2}) {
        const ProxyHeader got = ProxyHeader::parse(proxy_header(at(client), at(server), version));
        REQUIRE(got.state == State::complete);
        CHECK(got.client.peer_key() == at(client).peer_key());
        CHECK(got.client.port() == at(client).port());
      }
    }
  }
  for (const char* client : {"unix:/run/x", "unix:@name"}) {
    CHECK(client_of(proxy_header(at(client), at("unix:/b"))) == client);
  }
  CHECK_THROWS_WITH_AS((void)proxy_header({}, {}, 3), doctest::Contains("is 3"),
                       std::invalid_argument);
}

TEST_CASE("a network is trusted with all the addresses in it") {
  const TrustedProxies proxies({"10.0.0.0/8", "192.0.2.77", "172.16.0.0/12", "fd00::/9",
                                "2001:db8::5", "127.0.0.1/32", "198.51.100.128/25"});
  const auto trusted = [&](const std::string& host) {
    return proxies.contain(SocketAddress::parse(host + ":1"));
  };
  for (const char* host :
       {"10.0.0.0", "10.255.255.255", "192.0.2.77", "172.16.0.1", "172.31.255.255", "[fd00::1]",
        "[fd7f:ffff::]", "[2001:db8::5]", "[::ffff:10.1.2.3]", "127.0.0.1", "198.51.100.200"}) {
    CAPTURE(host);
    CHECK(trusted(host));
  }
  for (const char* host :
       {"9.255.255.255", "11.0.0.0", "192.0.2.76", "172.15.255.255", "172.32.0.0", "[fd80::1]",
        "[fc00::1]", "[2001:db8::6]", "[::ffff:11.1.2.3]", "127.0.0.2", "198.51.100.127"}) {
    CAPTURE(host);
    CHECK_FALSE(trusted(host));
  }
  CHECK_FALSE(proxies.contain(SocketAddress()));
  CHECK_FALSE(proxies.contain(SocketAddress::parse("unix:/x")));
  const TrustedProxies all({"0.0.0.0/0"});
  CHECK(all.contain(SocketAddress::parse("203.0.113.9:1")));
  CHECK(all.contain(SocketAddress::parse("[::ffff:203.0.113.9]:1")));
  CHECK_FALSE(all.contain(SocketAddress::parse("[::1]:1")));
  const TrustedProxies six({"::/0", "unix:"});
  CHECK(six.contain(SocketAddress::parse("[::1]:1")));
  CHECK(six.contain(SocketAddress::parse("unix:/x")));
  CHECK_FALSE(six.contain(SocketAddress::parse("203.0.113.9:1")));
  CHECK(TrustedProxies({}).none());
  CHECK_FALSE(six.none());
}

TEST_CASE("what is no network throws, and the text names the option and it") {
  for (const char* text :
       {"", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/8 ", "/8", "10.0.0/8", "localhost",
        "::/129", "::1/x", "10.0.0.0/8/8", "unix:/x", "1.2.3.4:80", "[::1]", "10.0.0.0/+8"}) {
    CAPTURE(text);
    CHECK_THROWS_WITH_AS(TrustedProxies({"127.0.0.1", text}),
                         doctest::Contains("ServerOptions::proxy_trusted"), std::invalid_argument);
    CHECK_THROWS_WITH_AS(TrustedProxies({text}), doctest::Contains(text), std::invalid_argument);
  }
}
