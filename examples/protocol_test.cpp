// A unit test of a small protocol, without a socket and in virtual time: its two ends are those of
// a stream_pair. Any framework will do in place of `check`; ctest looks at the exit status.
//
// The protocol: messages of 1000 bytes at the most, each behind its size in two bytes. A server
// answers each with its text the other way round, and ends after half a minute of silence.
#include <weir/sim.h>
#include <weir/weir.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <source_location>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

using namespace weir;
using namespace std::chrono_literals;

namespace {

// ---- what is tested: for a TcpConnection as well as for a PairedStream --------------------------

constexpr std::size_t kLongest = 1000;
constexpr std::size_t kHeader = 2;

std::string to_bytes(std::string_view text) {
  std::string bytes;
  append_big(bytes, static_cast<std::uint16_t>(text.size()));
  return bytes.append(text);
}

/// The next message with its header, taken in one read: dropped anywhere it has taken nothing.
/// Empty at the end.
Task<Chunk> read_message(ByteStream auto& stream) {
  const Chunk header = co_await stream.peek(kHeader);
  if (header.size() < kHeader) co_return co_await stream.read_exactly(header.size());
  const std::size_t size = std::to_integer<std::size_t>(header.bytes()[0]) << 8 |
                           std::to_integer<std::size_t>(header.bytes()[1]);
  if (size > kLongest) throw std::system_error(std::make_error_code(std::errc::message_size));
  co_return co_await stream.read_exactly(kHeader + size);
}

Task<> answer_messages(ByteStream auto stream) {
  for (;;) {
    auto [error, message] = co_await as_tuple(timeout(30s, read_message(stream)));
    if (error == std::errc::message_size) co_await stream.send(to_bytes("too long"));
    if (error || message.size() < kHeader) co_return;
    std::string text(message.view().substr(kHeader));
    std::ranges::reverse(text);
    co_await stream.send(to_bytes(text));
  }
}

// ---- the tests ----------------------------------------------------------------------------------

int failures = 0;

void check(bool holds, std::source_location where = std::source_location::current()) {
  if (holds) return;
  ++failures;
  std::printf("%s:%u: this does not hold\n", where.file_name(), where.line());
}

/// In virtual time: a minute takes none, and a test that waits for ever ends all the same.
void run_test(Task<> test) {
  sim::World world;
  sim::Host& host = world.add_host("10.0.0.1");
  host.spawn(std::move(test));
  world.run_for(1h);
  check(host.unfinished() == 0);
}

/// A server, and the other end of its stream.
struct Served {
  Served() {
    auto [ours, servers] = stream_pair();
    stream = std::move(ours);
    tasks.spawn(answer_messages(std::move(servers)));
  }
  PairedStream stream;
  TaskGroup tasks;
};

Task<> messages_are_answered_in_order() {
  Served server;
  co_await server.stream.send(to_bytes("abc") + to_bytes("") + to_bytes(std::string(1000, 'x')));
  const std::string expected = to_bytes("cba") + to_bytes("") + to_bytes(std::string(1000, 'x'));
  const Chunk answers = co_await server.stream.read_exactly(expected.size());
  check(answers.view() == expected);
}

Task<> a_message_may_come_in_pieces() {
  Served server;
  for (const char byte : to_bytes("in pieces")) {
    co_await server.stream.send(std::string_view(&byte, 1));
    co_await yield();  // what was sent is there, and the server has looked
  }
  const Chunk answer = co_await read_message(server.stream);
  check(answer.view() == to_bytes("seceip ni"));
}

Task<> what_is_too_long_is_refused_before_it_is_there() {
  Served server;
  co_await server.stream.send(std::string_view("\x03\xe9", 2));
  const Chunk answer = co_await read_message(server.stream);
  check(answer.view() == to_bytes("too long"));
  const Chunk end = co_await server.stream.read();
  check(end.is_end());
}

Task<> an_end_within_a_message_gets_no_answer() {
  for (const std::size_t size : {0U, 1U, 2U, 4U}) {
    Served server;
    co_await server.stream.send(to_bytes("abc").substr(0, size));
    co_await server.stream.shutdown();
    const Chunk end = co_await server.stream.read();
    check(end.is_end());
    co_await server.tasks.join();  // throws what left the server
  }
}

Task<> a_read_that_is_dropped_has_taken_nothing() {
  auto [here, there] = stream_pair();
  for (const char byte : to_bytes("abc")) {
    const auto early = co_await as_tuple(timeout(0s, read_message(here)));
    check(early.error == errc::deadline);
    co_await there.send(std::string_view(&byte, 1));
    co_await there.flush();
  }
  const Chunk message = co_await read_message(here);
  check(message.view() == to_bytes("abc"));
}

Task<> a_client_that_is_silent_is_left() {
  Served server;
  co_await sleep(29s);
  co_await server.stream.send(to_bytes("ab"));
  const Chunk answer = co_await read_message(server.stream);
  check(answer.view() == to_bytes("ba"));
  const auto early = co_await as_tuple(timeout(29s, server.stream.read()));
  check(early.error == errc::deadline);
  const auto [error, end] = co_await as_tuple(timeout(2s, server.stream.read()));
  check(!error && end.is_end());
}

}  // namespace

int main() try {
  run_test(messages_are_answered_in_order());
  run_test(a_message_may_come_in_pieces());
  run_test(what_is_too_long_is_refused_before_it_is_there());
  run_test(an_end_within_a_message_gets_no_answer());
  run_test(a_read_that_is_dropped_has_taken_nothing());
  run_test(a_client_that_is_silent_is_left());
  return failures == 0 ? 0 : 1;
} catch (const std::exception& error) {
  std::printf("a test throws: %s\n", error.what());
  return 1;
}
