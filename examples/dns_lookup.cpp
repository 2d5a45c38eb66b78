// dns_lookup --name NAME --server ADDRESS:PORT [--type A|AAAA] [--timeout MS] [--attempts N]
//
// Asks a name server for addresses: by UDP, again where no answer comes in time, and by TCP where
// the answer is too long for a datagram. What does not come from the server, or does not answer the
// question, is ignored. dns/message.h has the messages.
#include <weir/weir.h>

#include <sys/socket.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "common/arguments.h"
#include "common/udp_socket.h"
#include "dns/message.h"

using namespace weir;

namespace {

struct Question {
  SocketAddress server;
  std::string name;
  dns::Type type;
  std::chrono::milliseconds timeout;  // of one attempt
  std::size_t attempts;
};

/// A number that others cannot guess.
std::string query_for(const Question& question) {
  return dns::make_query(static_cast<std::uint16_t>(std::random_device()()), question.name,
                         question.type);
}

/// Whatever comes until there is an answer: a forged one ends nothing. So does what ICMP says.
Task<dns::Answer> ask_by_udp(const Question& question) {
  const UdpSocket udp(question.server.family());  // a port of its own, for each attempt another
  udp.connect(question.server);
  const std::string query = query_for(question);
  (void)::send(udp.fd(), query.data(), query.size(), 0);
  for (std::vector<char> bytes(65536);;) {
    co_await readable(udp.fd());
    const ssize_t got = ::recv(udp.fd(), bytes.data(), bytes.size(), 0);
    if (got < 0) continue;
    const auto answer = dns::read_answer({bytes.data(), static_cast<std::size_t>(got)}, query);
    if (answer) co_return *answer;
  }
}

Task<dns::Answer> ask_by_tcp(const Question& question) {
  TcpConnection conn = co_await connect(question.server.to_string());
  const std::string query = query_for(question);
  std::string message;
  append_big(message, static_cast<std::uint16_t>(query.size()));
  co_await conn.send(message + query);
  const auto size = co_await conn.read_big<std::uint16_t>();
  const Chunk bytes = co_await conn.read_exactly(size);
  const auto answer = dns::read_answer(bytes.view(), query);
  if (!answer || answer->truncated) {
    throw std::system_error(std::make_error_code(std::errc::bad_message), "its answer by TCP");
  }
  co_return *answer;
}

Task<dns::Answer> look_up(const Question& question) {
  for (std::size_t attempt = 0; attempt < question.attempts; ++attempt) {
    auto [error, answer] = co_await as_tuple(timeout(question.timeout, ask_by_udp(question)));
    if (error == errc::deadline) continue;
    if (error) throw std::system_error(error, question.server.to_string());
    if (!answer.truncated) co_return answer;
    co_return co_await timeout(question.timeout, ask_by_tcp(question));
  }
  throw std::runtime_error("no answer from " + question.server.to_string());
}

}  // namespace

int main(int argc, char** argv) try {
  const Arguments arguments(
      argc, argv,
      {{"name", ""}, {"server", ""}, {"type", "A"}, {"timeout", "2000"}, {"attempts", "3"}});
  const std::string& type = arguments.text("type");
  if (type != "A" && type != "AAAA") throw std::invalid_argument("--type is A or AAAA");
  const Question question{.server = SocketAddress::parse(arguments.text("server")),
                          .name = arguments.text("name"),
                          .type = type == "A" ? dns::Type::a : dns::Type::aaaa,
                          .timeout = arguments.milliseconds("timeout"),
                          .attempts = arguments.number("attempts")};
  const dns::Answer answer = run(look_up(question));
  if (answer.code == 3) throw std::runtime_error("there is no such name");
  if (answer.code != 0) throw std::runtime_error("error " + std::to_string(answer.code));
  if (answer.addresses.empty()) throw std::runtime_error("it has no address of this type");
  for (const std::string& address : answer.addresses) std::printf("%s\n", address.c_str());
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "dns_lookup: %s\n", error.what());
  return 1;
}
