#include <weir/net/socket_address.h>

#include <doctest/doctest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

using weir::SocketAddress;

namespace {

std::string refusal_of(std::string_view text) {
  try {
    (void)SocketAddress::parse(text);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return {};
}

}  // namespace

TEST_CASE("an address prints as what it was parsed from") {
  for (const char* text :
       {"0.0.0.0:0", "127.0.0.1:80", "1.2.3.4:65535", "255.255.255.255:1", "[::]:0", "[::1]:8080",
        "[2001:db8::1]:443", "[fe80::1%1]:9", "[1:2:3:4:5:6:7:8]:65535", "unix:/tmp/a socket",
        "unix:relative", "unix:/a:80", "unix:@abstract", "unix:@a:b@c", "unix:[::1]:80"}) {
    CAPTURE(text);
    CHECK(SocketAddress::parse(text).to_string() == text);
  }
}

TEST_CASE("an IPv6 address prints in its shortest form") {
  CHECK(SocketAddress::parse("[0:0:0:0:0:0:0:1]:080").to_string() == "[::1]:80");
  CHECK(SocketAddress::parse("[2001:DB8:0:0::2]:1").to_string() == "[2001:db8::2]:1");
}

TEST_CASE("a scope may be the name of an interface") {
  const auto address = SocketAddress::parse("[fe80::1%lo]:80");
  CHECK(address == SocketAddress::parse("[fe80::1%1]:80"));
  CHECK(address != SocketAddress::parse("[fe80::1]:80"));
}

TEST_CASE("an IPv6 address in brackets without a port is told that the port is missing") {
  CHECK(refusal_of("[::1]").find("the port is missing") != std::string::npos);
}

TEST_CASE("a bad address is refused with a message that names it") {
  for (const char* text : {"",
                           ":",
                           ":80",
                           "80",
                           "1.2.3.4",
                           "1.2.3.4:",
                           "1.2.3.4:x",
                           "1.2.3.4:80x",
                           "1.2.3.4: 80",
                           " 1.2.3.4:80",
                           "1.2.3.4 :80",
                           "1.2.3.4:+80",
                           "1.2.3.4:-1",
                           "1.2.3.4:65536",
                           "1.2.3.4:99999999999999999999",
                           "1.2.3:80",
                           "1.2.3.4.5:80",
                           "1.2.3.256:80",
                           "1.2.3.04x:80",
                           "0x7f.0.0.1:80",
                           "localhost:80",
                           "::1:80",
                           "::1",
                           "[::1]",
                           "[::1]80",
                           "[::1]:",
                           "[::1:80",
                           "::1]:80",
                           "[]:80",
                           "[1.2.3.4]:80",
                           "[::g]:80",
                           "[::1::]:80",
                           "[::1%]:80",
                           "[::1%0]:80",
                           "[fe80::1%no-such-interface]:80",
                           "[fe80::1%99999999999]:80",
                           "[[::1]]:80",
                           "unix:",
                           "tcp:1.2.3.4:80"}) {
    CAPTURE(text);
    const std::string message = refusal_of(text);
    CHECK(message.find('"' + std::string(text) + '"') != std::string::npos);
    CHECK(message.find("weir: ") == 0);
  }
}

TEST_CASE("a NUL ends no address early") {
  using namespace std::string_view_literals;
  for (const std::string_view text : {"1.2.3.4\0:80"sv, "1.2.3.4:80\0"sv, "[::1\0]:80"sv,
                                      "[fe80::1%lo\0]:80"sv, "unix:/a\0b"sv}) {
    CAPTURE(text.size());
    CHECK(refusal_of(text) != "");
  }
}

TEST_CASE("an address without a host is told how to say every address") {
  for (const std::string_view text : {":80", "*:80"}) {
    CAPTURE(text);
    CHECK(refusal_of(text).find("0.0.0.0 or [::]") != std::string::npos);
  }
  CHECK(refusal_of("localhost:80").find("weir::connect") != std::string::npos);
}

TEST_CASE("control characters of a bad address do not reach the message") {
  const std::string message = refusal_of("1.2.3.4\n\x1b[31m:80");
  CHECK(message != "");
  CHECK(message.find('\n') == std::string::npos);
  CHECK(message.find('\x1b') == std::string::npos);
}

TEST_CASE("a Unix path has 107 bytes at the most") {
  const std::string longest = "unix:/" + std::string(106, 'x');
  CHECK(SocketAddress::parse(longest).to_string() == longest);
  CHECK(SocketAddress::parse(longest).unix_path().size() == 107);
  const std::string abstract = "unix:@" + std::string(106, 'x');
  CHECK(SocketAddress::parse(abstract).to_string() == abstract);
  const std::string message = refusal_of(longest + "x");
  CHECK(message.find("107") != std::string::npos);
  CHECK(refusal_of(abstract + "x") != "");
}

TEST_CASE("port, family and path are those of the address") {
  const auto v4 = SocketAddress::parse("1.2.3.4:80");
  CHECK(v4.port() == 80);
  CHECK(v4.family() == AF_INET);
  CHECK(v4.is_ip());
  CHECK_FALSE(v4.is_unix());
  CHECK(v4.unix_path() == "");

  const auto v6 = SocketAddress::parse("[::1]:65535");
  CHECK(v6.port() == 65535);
  CHECK(v6.family() == AF_INET6);
  CHECK(v6.is_ip());

  const auto path = SocketAddress::parse("unix:/run/x");
  CHECK(path.port() == 0);
  CHECK(path.is_unix());
  CHECK_FALSE(path.is_ip());
  CHECK(path.unix_path() == "/run/x");

  const auto abstract = SocketAddress::parse("unix:@x");
  CHECK(abstract.is_unix());
  CHECK(abstract.unix_path() == "");  // nothing in the file system
}

TEST_CASE("no address is false and unknown") {
  const SocketAddress none;
  CHECK_FALSE(none);
  CHECK(none.to_string() == "unknown");
  CHECK(none.family() == AF_UNSPEC);
  CHECK(none.port() == 0);
  CHECK(none == SocketAddress());
  CHECK(none != SocketAddress::parse("0.0.0.0:0"));
  CHECK(SocketAddress::parse("0.0.0.0:0"));
}

TEST_CASE("addresses have an order and a hash that agree with equality") {
  const std::vector<std::string> texts = {
      "1.2.3.4:80", "1.2.3.4:81",  "1.2.3.5:80",    "9.0.0.1:80", "[::1]:80", "[::2]:80",
      "[::1]:81",   "[fe80::1]:1", "[fe80::1%1]:1", "unix:/a",    "unix:/b",  "unix:@a"};
  std::set<SocketAddress> ordered;
  std::unordered_set<SocketAddress> hashed;
  for (int twice = 0; twice < 2; ++twice) {
    for (const std::string& text : texts) {
      ordered.insert(SocketAddress::parse(text));
      hashed.insert(SocketAddress::parse(text));
    }
  }
  CHECK(ordered.size() == texts.size());
  CHECK(hashed.size() == texts.size());
  CHECK(SocketAddress::parse("1.2.3.4:80") < SocketAddress::parse("1.2.3.4:81"));
  CHECK(SocketAddress::parse("1.2.3.4:81") < SocketAddress::parse("1.2.3.5:80"));
}

TEST_CASE("what the kernel leaves in the padding makes no difference") {
  weir::detail::RawAddress raw = SocketAddress::parse("1.2.3.4:80").raw();
  std::fill(raw.bytes + 8, raw.bytes + 16, static_cast<unsigned char>(0xee));  // sin_zero
  const SocketAddress other(raw);
  CHECK(other == SocketAddress::parse("1.2.3.4:80"));
  CHECK(std::hash<SocketAddress>()(other) ==
        std::hash<SocketAddress>()(SocketAddress::parse("1.2.3.4:80")));

  raw = SocketAddress::parse("[::1]:80").raw();
  reinterpret_cast<sockaddr_in6*>(raw.bytes)->sin6_flowinfo = 7;
  CHECK(SocketAddress(raw) == SocketAddress::parse("[::1]:80"));
}

TEST_CASE("control characters of a Unix path come out escaped") {
  CHECK(SocketAddress::parse("unix:/a\nb\x7f").to_string() == "unix:/a\\x0ab\\x7f");
}

TEST_CASE("peers are counted by IPv4 address or by the /64 of an IPv6 one") {
  const auto key = [](const char* text) { return SocketAddress::parse(text).peer_key(); };
  CHECK(key("1.2.3.4:80") == key("1.2.3.4:9"));
  CHECK(key("1.2.3.4:80") != key("1.2.3.5:80"));
  CHECK(key("1.2.3.4:80") == key("[::ffff:1.2.3.4]:80"));
  CHECK(key("[2001:db8::1]:80") == key("[2001:db8::ffff:1]:80"));
  CHECK(key("[2001:db8::1]:80") != key("[2001:db8:0:1::1]:80"));
  CHECK(key("0.0.0.0:1") != key("unix:/a"));
  CHECK(key("unix:/a") == 0);
  CHECK(SocketAddress().peer_key() == 0);
}
