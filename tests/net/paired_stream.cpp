#include <doctest/doctest.h>

#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "../support/net.h"

using namespace weir;
using namespace weir::test;

namespace {

/// A protocol, written to the concept: "N bytes\n" is answered by N letters.
template <ByteStream Stream>
Task<> serve(Stream& stream) {
  for (;;) {
    const Chunk first = co_await stream.peek(1);
    if (first.is_end()) break;
    Chunk line = co_await stream.read_until("\n", 100);
    std::string answer(std::stoul(std::string(line.view())), 'x');
    const std::string_view parts[] = {"<", answer, ">"};
    co_await stream.send(parts);
  }
  co_await stream.shutdown();
}

template <ByteStream Stream>
Task<std::string> ask(Stream& stream) {
  co_await stream.send("3 bytes\n");
  co_await stream.send("0 bytes\n");
  co_await stream.shutdown();
  std::string all;
  for (;;) {
    const Chunk chunk = co_await stream.read(2);
    if (chunk.is_end()) co_return all;
    CHECK(chunk.size() <= 2);
    all += chunk.view();
  }
}

// Two literals in braces would be one string, of what lies between them in memory.
template <class Stream>
concept SendsBraces = requires(Stream& stream) { stream.send({"head", "body"}); };
static_assert(!SendsBraces<PairedStream> && !SendsBraces<TcpConnection>);

Task<> send_into(PairedStream& to, std::size_t size, std::optional<std::error_code>& error) {
  std::string message(size, 'x');
  const auto result = co_await as_tuple(to.send(std::move(message)));
  error = result.error;
}

}  // namespace

TEST_CASE("a protocol that is written to ByteStream runs on a pair as on a connection") {
  on_each_engine([]() -> Task<> {
    TaskGroup group;
    auto [a, b] = stream_pair();
    group.spawn(serve(b));
    const std::string in_memory = co_await ask(a);
    CHECK(in_memory == "<xxx><>");
    auto [client, server] = link_pair();
    group.spawn(serve(server));
    const std::string on_sockets = co_await ask(client);
    CHECK(on_sockets == in_memory);
    co_await group.join();
  });
}

TEST_CASE("a pair moves a megabyte both ways at once, by its marks") {
  on_each_engine([]() -> Task<> {
    PairOptions options;
    options.water_marks = {.high = 10000, .low = 1000};
    options.input_high = 5000;
    auto [a, b] = stream_pair(options);
    const auto send = [](PairedStream& to, std::uint64_t seed) -> Task<> {
      for (std::size_t offset = 0; offset < 1 << 20; offset += 1 << 14) {
        co_await to.send(pattern(1 << 14, seed, offset));
        CHECK(to.pending_bytes() <= 1000);
      }
      co_await to.shutdown();
    };
    const auto receive = [](PairedStream& from, std::uint64_t seed) -> Task<> {
      std::size_t got = 0;
      while (Chunk chunk = co_await from.read()) {
        REQUIRE(matching(chunk.view(), seed, got) == chunk.size());
        got += chunk.size();
      }
      CHECK(got == 1 << 20);
    };
    TaskGroup group;
    group.spawn(send(a, 1));
    group.spawn(send(b, 2));
    group.spawn(receive(a, 2));
    group.spawn(receive(b, 1));
    co_await group.join();
  });
}

TEST_CASE("a send on a pair waits until the other end has read") {
  on_each_engine([]() -> Task<> {
    PairOptions options;
    options.water_marks = {.high = 100, .low = 0};
    options.input_high = 10;
    auto [a, b] = stream_pair(options);
    std::optional<std::error_code> first;
    std::optional<std::error_code> second;
    TaskGroup group;
    group.spawn(send_into(a, 200, first));
    group.spawn(send_into(a, 200, second));
    co_await turns(3);
    CHECK(first);  // it lies in the other's inbox
    CHECK_FALSE(second);
    const Chunk chunk = co_await b.read_exactly(400);
    CHECK(chunk.size() == 400);
    co_await group.join();
    CHECK_FALSE(*second);
  });
}

TEST_CASE(
    "closing an end of a pair sends what is queued, ends who waits, and throws away the rest") {
  on_each_engine([]() -> Task<> {
    PairOptions options;
    options.water_marks = {.high = 100, .low = 0};
    auto [a, b] = stream_pair(options);
    std::error_code told;
    const auto read = [](PairedStream& from, std::error_code& error) -> Task<> {
      error = (co_await as_tuple(from.read())).error;
    };
    TaskGroup group;
    group.spawn(read(a, told));
    co_await a.send("last words");
    a.close();
    co_await group.join();
    CHECK(told == errc::closed_here);
    const Chunk words = co_await b.read_exactly(10);
    CHECK(words.view() == "last words");
    const Chunk end = co_await b.read();
    CHECK(end.is_end());
    for (int i = 0; i < 10; ++i) co_await b.send("nobody reads this");
    co_await b.flush();
    const auto late = co_await as_tuple(a.send("late"));
    CHECK(late.error == std::errc::broken_pipe);
  });
}

TEST_CASE("the ends of a pair may go in any order, with reads, sends and bytes on the way") {
  on_each_engine([]() -> Task<> {
    for (int way = 0; way < 8; ++way) {
      PairOptions options;
      options.water_marks = {.high = 10, .low = 0};
      options.input_high = 10;
      std::optional<StreamEnds> ends(stream_pair(options));
      std::optional<PairedStream> first(std::move((way & 1) != 0 ? ends->a : ends->b));
      std::optional<PairedStream> second(std::move((way & 1) != 0 ? ends->b : ends->a));
      std::optional<std::error_code> sent[3];
      TaskGroup group;
      for (auto& error : sent) group.spawn(send_into(*second, 20, error));
      if ((way & 2) != 0) co_await turns(2);
      first.reset();
      if ((way & 4) != 0) co_await turns(2);
      second.reset();
      co_await group.join();
    }
    PairedStream none;
    CHECK_FALSE(none);
    const auto nothing = co_await as_tuple(none.read());
    CHECK(nothing.error == errc::closed_here);
    const auto unsent = co_await as_tuple(none.send("x"));
    CHECK(unsent.error == std::errc::not_connected);
    CHECK_THROWS_AS((void)stream_pair({.water_marks = {.high = 0, .low = 0}}),
                    std::invalid_argument);
  });
}

TEST_CASE("the ends of a pair whose loop has ended may be used, closed and dropped") {
  for_each_engine([](Engine engine) {
    StreamEnds ends;
    StreamEnds quiet;
    on_engine(engine, [&]() -> Task<> {
      quiet = stream_pair();
      ends = stream_pair();
      co_await ends.a.send("not read");
    });
    quiet.a.close();
    on_engine(engine, [&]() -> Task<> {
      const auto read = co_await as_tuple(ends.b.read());
      CHECK(read.error == errc::closed_here);
      const auto sent = co_await as_tuple(ends.a.send("more"));
      CHECK(sent.error == errc::closed_here);
      ends.b = PairedStream();
    });
  });
}
