// c-ares on weir's loop against a server of the test's own.
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "../../examples/adapters/cares.h"
#include "example.h"
#include "service.h"

using namespace weir;
using namespace weir::test;

namespace {

constexpr std::uint16_t kA = 1;
constexpr std::uint16_t kAaaa = 28;

/// Answers questions (RFC 1035) on a UDP socket, in a task of the current loop: "nN.test" has an
/// IPv4 address, "six.test" an IPv6 one, "lost.test" one upon the second question, "silent.test"
/// gets no answer at all, and there are no other names.
class Names {
 public:
  Names() : fd_(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(::bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    socklen_t size = sizeof address;
    REQUIRE(::getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size) == 0);
    port_ = ntohs(address.sin_port);
    tasks_.spawn(serve());
  }
  Names(const Names&) = delete;
  Names& operator=(const Names&) = delete;
  ~Names() {
    tasks_.cancel();
    ::close(fd_);
  }

  [[nodiscard]] std::string server() const { return "127.0.0.1:" + std::to_string(port_); }
  Event& silent_question() { return silent_question_; }

 private:
  Task<> serve() {
    std::array<char, 512> packet{};
    for (;;) {
      co_await readable(fd_);
      sockaddr_in from{};
      socklen_t size = sizeof from;
      const ssize_t count = ::recvfrom(fd_, packet.data(), packet.size(), 0,
                                       reinterpret_cast<sockaddr*>(&from), &size);
      if (count < 12) continue;
      const std::string answer = answer_to({packet.data(), static_cast<std::size_t>(count)});
      if (answer.empty()) continue;
      ::sendto(fd_, answer.data(), answer.size(), 0, reinterpret_cast<sockaddr*>(&from), size);
    }
  }

  std::string answer_to(std::string_view question) {
    constexpr std::size_t kHeader = 12;
    std::string name;
    std::size_t at = kHeader;
    while (question[at] != '\0') {
      const auto length = static_cast<std::size_t>(question[at]);
      name += std::string(question.substr(at + 1, length)) + '.';
      at += length + 1;
    }
    const std::uint16_t type = static_cast<unsigned char>(question[at + 2]);
    const std::size_t end = at + 5;
    std::string data;
    bool known = true;
    if (name == "silent.test.") {
      silent_question_.set();
      return {};
    }
    if (name == "lost.test." && asked_.insert(type).second) return {};
    if (name == "lost.test." || (name.starts_with('n') && name.ends_with(".test."))) {
      const int number = name == "lost.test." ? 0 : std::stoi(name.substr(1));
      if (type == kA) data = std::string("\x7f\0\0", 3) + static_cast<char>(number);
    } else if (name == "six.test.") {
      if (type == kAaaa) data = std::string(15, '\0') + '\x01';
    } else {
      known = false;
    }
    std::string answer(question.substr(0, 2));
    append_big(answer, static_cast<std::uint16_t>(known ? 0x8180 : 0x8183));
    append_big(answer, std::uint16_t{1});
    append_big(answer, static_cast<std::uint16_t>(data.empty() ? 0 : 1));
    append_big(answer, std::uint32_t{0});
    answer += question.substr(kHeader, end - kHeader);
    if (data.empty()) return answer;
    append_big(answer, std::uint16_t{0xc00c});  // the question's name
    append_big(answer, type);
    append_big(answer, std::uint16_t{1});
    append_big(answer, std::uint32_t{60});
    append_big(answer, static_cast<std::uint16_t>(data.size()));
    return answer + data;
  }

  int fd_;
  std::uint16_t port_ = 0;
  Event silent_question_;
  std::set<std::uint16_t> asked_;  // for "lost.test", by type
  TaskGroup tasks_;
};

/// All addresses, or the error's text.
Task<std::string> resolved(adapters::Cares& cares, std::string name) {
  std::string text;
  try {
    const std::vector<SocketAddress> addresses = co_await cares.resolve(name, 80);
    for (const SocketAddress& address : addresses) text += address.to_string() + ' ';
  } catch (const std::runtime_error& error) {
    text = error.what();
  }
  co_return text;
}

Task<> resolve_number(adapters::Cares& cares, int number, int& right) {
  const std::string got = co_await resolved(cares, "n" + std::to_string(number) + ".test");
  if (got == "127.0.0." + std::to_string(number) + ":80 ") ++right;
}

}  // namespace

TEST_CASE("a hundred names are asked for at once, and one question is dropped") {
  on_each_kernel_engine("c-ares has sockets of its own", []() -> Task<> {
    const std::size_t descriptors = count_descriptors();
    {
      Names names;
      const adapters::CaresOptions options{
          .servers = names.server(), .timeout = 500ms, .tries = 10};
      adapters::Cares cares(options);
      int right = 0;
      TaskGroup questions;
      TaskGroup dropped;
      dropped.spawn(cares.resolve("silent.test", 80));
      for (int i = 1; i <= 100; ++i) questions.spawn(resolve_number(cares, i, right));
      co_await names.silent_question().wait();
      dropped.cancel();
      co_await questions.join();
      CHECK(right == 100);
      const std::string six = co_await resolved(cares, "six.test");
      CHECK(six == "[::1]:80 ");
      const std::string missing = co_await resolved(cares, "missing.test");
      CHECK(missing == ares_strerror(ARES_ENOTFOUND));
    }
    CHECK(count_descriptors() == descriptors);
  });
}

TEST_CASE("a question that was lost is asked again") {
  on_each_kernel_engine("c-ares has sockets of its own", []() -> Task<> {
    Names names;
    const adapters::CaresOptions options{.servers = names.server(), .timeout = 50ms, .tries = 10};
    adapters::Cares cares(options);
    const std::string lost = co_await resolved(cares, "lost.test");
    CHECK(lost == "127.0.0.0:80 ");
  });
}

TEST_CASE("who asks a resolver that goes is told, or is not there any more") {
  on_each_kernel_engine("c-ares has sockets of its own", []() -> Task<> {
    Names names;
    const adapters::CaresOptions options{.servers = names.server(), .timeout = kPatience};
    adapters::Cares dropped(options);
    TaskGroup asking;
    asking.spawn(dropped.resolve("silent.test", 80));
    co_await names.silent_question().wait();
    CHECK_THROWS_AS(adapters::Cares({.servers = "no address"}), std::runtime_error);
  });
}

TEST_CASE("the program for c-ares looks names up") {
  on_engine(Engine::automatic, []() -> Task<> {
    Names names;
    auto look_up = [server = names.server()] {
      return run_program(Example::path_of("adapters/cares_lookup"),
                         {"--servers", server, "n7.test", "six.test", "missing.test"});
    };
    const Ran ran = co_await blocking(std::move(look_up));
    INFO(ran.output);
    CHECK(ran.status == 0);
    CHECK(ran.output.find("n7.test: 127.0.0.7:0\n") != std::string::npos);
    CHECK(ran.output.find("six.test: [::1]:0\n") != std::string::npos);
    CHECK(ran.output.find("missing.test: Domain name not found\n") != std::string::npos);
  });
}
