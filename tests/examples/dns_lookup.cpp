// The DNS client, against name servers that lose, forge and cut off.
#include <weir/weir.h>

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "../../examples/common/udp_socket.h"
#include "../../examples/dns/message.h"
#include "example.h"
#include "origin.h"

using namespace weir;
using namespace std::string_literals;

namespace {

constexpr std::size_t kFlags = 2;

struct Record {
  std::string name;  // in the message's form; "\xc0\x0c" is the one that was asked for
  std::uint16_t type;
  std::string data;
};

const std::string kAsked = "\xc0\x0c"s;

std::string reply_to(std::string_view query, const std::vector<Record>& records,
                     std::uint16_t flags = 0x8180) {
  std::string message(query.substr(0, kFlags));
  append_big(message, flags);
  append_big<std::uint16_t>(message, 1);
  append_big(message, static_cast<std::uint16_t>(records.size()));
  message.append(4, '\0').append(query.substr(dns::kHeader));
  for (const Record& record : records) {
    message += record.name;
    append_big(message, record.type);
    append_big<std::uint16_t>(message, 1);
    append_big<std::uint32_t>(message, 60);
    append_big(message, static_cast<std::uint16_t>(record.data.size()));
    message += record.data;
  }
  return message;
}

const Record kGood{kAsked, 1, "\xc0\0\2\1"s};  // 192.0.2.1

}  // namespace

TEST_CASE("a query has the form of RFC 1035, and bad names are refused") {
  CHECK(dns::make_query(0x1234, "ab.example.", dns::Type::aaaa) ==
        "\x12\x34\1\0\0\1\0\0\0\0\0\0\2ab\7example\0\0\x1c\0\1"s);
  const std::string label(63, 'x');
  for (const std::string& name :
       std::vector<std::string>{"", ".", "a..b", ".a", "a..", label + "x.example",
                                label + '.' + label + '.' + label + '.' + label}) {
    CAPTURE(name);
    CHECK_THROWS_AS(dns::make_query(1, name, dns::Type::a), std::invalid_argument);
  }
}

TEST_CASE("an answer follows other names, and takes what is of the name and type alone") {
  const std::string query = dns::make_query(7, "www.Example.org", dns::Type::a);
  // "www" is at 12, "Example" at 16, "org" at 24.
  const std::string other = "\3web\xc0\x10"s;  // web.example.org
  const auto answer =
      dns::read_answer(reply_to(query, {{kAsked, 5, other},
                                        {other, 28, std::string(16, '\1')},
                                        {other, 1, "\xc0\0\2\7"s},
                                        {"\3WEB\7eXAMPLE\3org\0"s, 1, "\xc0\0\2\x8"s},
                                        {"\4evil\xc0\x10"s, 1, "\xc0\0\2\x9"s},
                                        {other, 1, "short"}}),
                       query);
  REQUIRE(answer);
  CHECK(answer->code == 0);
  CHECK(answer->addresses == std::vector<std::string>{"192.0.2.7", "192.0.2.8"});
}

TEST_CASE("what is cut off, leads in circles or is broken anywhere else does no harm") {
  const std::string query = dns::make_query(7, "www.example.org", dns::Type::a);
  const std::string whole =
      reply_to(query, {{kAsked, 5, "\3web\xc0\x10"s}, {"\3web\xc0\x10"s, 1, "\xc0\0\2\1"s}});
  REQUIRE(dns::read_answer(whole, query));
  for (std::size_t size = 0; size < whole.size(); ++size) {
    CAPTURE(size);
    const std::vector<char> exact(whole.begin(), whole.begin() + static_cast<long>(size));
    CHECK_FALSE(dns::read_answer({exact.data(), exact.size()}, query));
  }
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (int byte = 0; byte < 256; ++byte) {
      std::vector<char> broken(whole.begin(), whole.end());
      broken[at] = static_cast<char>(byte);
      const auto answer = dns::read_answer({broken.data(), broken.size()}, query);
      if (answer && answer->addresses.size() > 1) FAIL("an address from nowhere");
    }
  }
  const auto here = static_cast<char>(query.size());
  for (const std::string& name : std::vector<std::string>{
           "\xc0"s + here,                     // to itself
           "\xc0"s + char(here + 2) + "\0"s,   // forward
           "\1a\xc0"s + here,                  // round and round
           "\x80\x0c"s, "\xff\xff"s, "\xc0"s,  // no kind of label; outside; half
           std::string(4, '\x3f') + std::string(300, 'a')}) {
    CAPTURE(name);
    CHECK_FALSE(dns::read_answer(reply_to(query, {{name, 1, "\xc0\0\2\1"s}}), query));
  }
}

#ifdef WEIR_EXAMPLES_DIR
using namespace weir::test;

namespace {

/// A name server on a port of its own, by UDP; its end of TCP is `tcp`.
class NameServer {
 public:
  NameServer() {
    REQUIRE(eventually([this] {  // the port of one kind may be taken in the other
      tcp.emplace();
      try {
        udp_.emplace(AF_INET);
        udp_->bind(SocketAddress::parse(tcp->address()));
        return true;
      } catch (const std::system_error&) {
        return false;
      }
    }));
  }

  std::string receive() {
    pollfd waiting{.fd = udp_->fd(), .events = POLLIN, .revents = 0};
    REQUIRE(::poll(&waiting, 1, 120'000) == 1);
    std::string bytes(1000, '\0');
    size_ = sizeof peer_;
    auto* peer = reinterpret_cast<sockaddr*>(&peer_);
    const ssize_t got = ::recvfrom(udp_->fd(), bytes.data(), bytes.size(), 0, peer, &size_);
    REQUIRE(got > 0);
    bytes.resize(static_cast<std::size_t>(got));
    return bytes;
  }
  /// To whom it received from last.
  void send(std::string_view bytes) const { send_from(*udp_, bytes); }
  void send_from(const UdpSocket& other, std::string_view bytes) const {
    const auto* peer = reinterpret_cast<const sockaddr*>(&peer_);
    REQUIRE(::sendto(other.fd(), bytes.data(), bytes.size(), 0, peer, size_) ==
            static_cast<ssize_t>(bytes.size()));
  }
  [[nodiscard]] bool has_more() const {
    pollfd waiting{.fd = udp_->fd(), .events = POLLIN, .revents = 0};
    return ::poll(&waiting, 1, 0) == 1;
  }

  std::optional<Origin> tcp;

 private:
  std::optional<UdpSocket> udp_;
  sockaddr_storage peer_{};
  socklen_t size_ = 0;
};

/// The client that asks it. What it is told is its output.
class Lookup {
 public:
  explicit Lookup(const std::string& server, std::vector<std::string> options = {})
      : child_(Example::path_of("dns_lookup"), arguments(server, std::move(options))) {}
  [[nodiscard]] bool has_ended() const {
    siginfo_t info{};
    const auto process = static_cast<id_t>(child_.process());
    return ::waitid(P_PID, process, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0;
  }
  /// The lines that it says, and how it ends.
  Ran result() {
    std::string output = without_stalls(child_.read_all());
    return {child_.wait(), std::move(output)};
  }

 private:
  static std::vector<std::string> arguments(const std::string& server,
                                            std::vector<std::string> options) {
    const std::vector<std::string> needed = {"--name", "www.example.org", "--server",
                                             server,   "--timeout",       "120000"};
    options.insert(options.begin(), needed.begin(), needed.end());
    return options;
  }
  Child child_;
};

void check_good(Lookup& lookup) {
  const Ran ran = lookup.result();
  CHECK(ran.output == "192.0.2.1\n");
  CHECK(ran.status == 0);
}

}  // namespace

TEST_CASE("addresses of both families are looked up") {
  NameServer server;
  Lookup four(server.tcp->address());
  const std::string query = server.receive();
  CHECK(query.substr(kFlags) == dns::make_query(0, "www.example.org", dns::Type::a).substr(kFlags));
  server.send(reply_to(query, {kGood, {kAsked, 1, "\xc0\0\2\2"s}}));
  const Ran two = four.result();
  CHECK(two.output == "192.0.2.1\n192.0.2.2\n");
  CHECK(two.status == 0);
  Lookup six(server.tcp->address(), {"--type", "AAAA"});
  server.send(reply_to(server.receive(), {{kAsked, 28, "\x20\1\xd\xb8"s + std::string(12, '\0')}}));
  CHECK(six.result().output == "2001:db8::\n");
}

TEST_CASE("a query, or answer, that is lost is asked for again, and in the end given up") {
  NameServer server;
  Lookup lookup(server.tcp->address(), {"--timeout", "200", "--attempts", "1000"});
  (void)server.receive();
  (void)server.receive();
  // On a busy machine an answer may be late again.
  CHECK(eventually([&] {
    if (server.has_more()) server.send(reply_to(server.receive(), {kGood}));
    return lookup.has_ended();
  }));
  check_good(lookup);

  NameServer silent;
  Lookup given_up(silent.tcp->address(), {"--timeout", "20", "--attempts", "3"});
  const Ran ran = given_up.result();
  CHECK(ran.output == "dns_lookup: no answer from " + silent.tcp->address() + '\n');
  CHECK(ran.status == 1);
  for (int i = 0; i < 3; ++i) (void)silent.receive();
  CHECK_FALSE(silent.has_more());
}

TEST_CASE("an answer from elsewhere, with another number or to another question is ignored") {
  NameServer server;
  Lookup lookup(server.tcp->address());
  const std::string query = server.receive();
  const Record evil{kAsked, 1, "\xc6\x33\x64\1"s};
  const std::string forged = reply_to(query, {evil});
  UdpSocket elsewhere(AF_INET);
  elsewhere.bind(SocketAddress::parse("127.0.0.1:0"));
  server.send_from(elsewhere, forged);
  std::string other_number = forged;
  other_number[1] ^= 1;
  server.send(other_number);
  std::string other_question = forged;
  other_question[dns::kHeader + 1] ^= 1;
  server.send(other_question);
  server.send(reply_to(query, {evil}, 0x0100));  // a question itself
  server.send(forged.substr(0, forged.size() - 1));
  server.send("");
  server.send(reply_to(query, {{"\xc0"s + static_cast<char>(query.size()), 1, evil.data}}));
  server.send(reply_to(query, {kGood}));
  check_good(lookup);
  CHECK_FALSE(server.has_more());  // it was asked once
}

TEST_CASE("an answer that is too long for a datagram is asked for by TCP") {
  NameServer server;
  Lookup lookup(server.tcp->address());
  server.send(reply_to(server.receive(), {}, 0x8380));
  Peer peer = server.tcp->accept();
  const std::string head = peer.receive_exactly(2);
  REQUIRE(head.size() == 2);
  const std::string query = peer.receive_exactly(static_cast<unsigned char>(head[1]));
  std::string expected;
  std::vector<Record> records;
  for (int i = 0; i < 200; ++i) {
    records.push_back({kAsked, 1, "\xc0\0\2"s + static_cast<char>(i)});
    expected += "192.0.2." + std::to_string(i) + '\n';
  }
  const std::string reply = reply_to(query, records);
  std::string message;
  append_big(message, static_cast<std::uint16_t>(reply.size()));
  message += reply;
  peer.send(message.substr(0, 1000));
  peer.send(message.substr(1000));
  const Ran ran = lookup.result();
  CHECK(ran.output == expected);
  CHECK(ran.status == 0);

  Lookup cut_off(server.tcp->address());
  server.send(reply_to(server.receive(), {}, 0x8380));
  Peer other = server.tcp->accept();
  other.send(message.substr(0, 1000));
  other.shutdown_send();
  CHECK(cut_off.result().status == 1);
}

TEST_CASE("a name that is not there, a server that fails, and bad options are told") {
  NameServer server;
  Lookup none(server.tcp->address());
  server.send(reply_to(server.receive(), {}, 0x8183));
  CHECK(none.result().output == "dns_lookup: there is no such name\n");
  Lookup failing(server.tcp->address());
  server.send(reply_to(server.receive(), {}, 0x8182));
  CHECK(failing.result().output == "dns_lookup: error 2\n");
  for (const std::vector<std::string>& options : std::vector<std::vector<std::string>>{
           {"--type", "MX"}, {"--name", ""}, {"--name", "a..b"}, {"--server", "nonsense"}}) {
    const Ran ran = Lookup(server.tcp->address(), options).result();
    CHECK(ran.status == 1);
    CHECK(ran.output.starts_with("dns_lookup: "));
  }
}
#endif
