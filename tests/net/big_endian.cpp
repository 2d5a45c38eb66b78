#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "../support/net.h"
#include "../support/net_drop.h"

using namespace weir;
using namespace weir::test;

namespace {

Task<> send_frame(ByteStream auto& stream, std::string_view body) {
  std::string frame;
  append_big<std::uint32_t>(frame, static_cast<std::uint32_t>(body.size()));
  co_await stream.send(std::move(frame += body));
}

Task<std::string> read_frame(ByteStream auto& stream) {
  const auto size = co_await stream.template read_big<std::uint32_t>();
  const Chunk body = co_await stream.read_exactly(size);
  co_return std::string(body.view());
}

}  // namespace

TEST_CASE("append_big writes the most significant byte first, as many as the type has") {
  std::string text;
  append_big<std::uint8_t>(text, 1);
  append_big<std::uint16_t>(text, 0x0203);
  append_big<std::uint32_t>(text, 0x04050607);
  append_big<std::uint64_t>(text, 0x08090a0b0c0d0e0f);
  append_big<std::int16_t>(text, -2);
  CHECK(text == "\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\xff\xfe");
  std::vector<std::byte> bytes;
  append_big<std::uint16_t>(bytes, 0xff01);
  CHECK(bytes == std::vector{std::byte{0xff}, std::byte{1}});
}

TEST_CASE("integers of every size come as they went, in memory and on a connection") {
  on_each_engine([]() -> Task<> {
    const auto exchange = [](auto& from, auto& to) -> Task<> {
      std::string text;
      append_big<std::uint8_t>(text, 255);
      append_big<std::int8_t>(text, -1);
      append_big<std::uint16_t>(text, 65534);
      append_big<std::int32_t>(text, std::numeric_limits<std::int32_t>::min());
      append_big<std::uint64_t>(text, std::numeric_limits<std::uint64_t>::max() - 1);
      append_big<std::int64_t>(text, -3);
      co_await from.send(std::move(text));
      CHECK(co_await to.template read_big<std::uint8_t>() == 255);
      CHECK(co_await to.template read_big<std::int8_t>() == -1);
      CHECK(co_await to.template read_big<std::uint16_t>() == 65534);
      CHECK(co_await to.template read_big<std::int32_t>() ==
            std::numeric_limits<std::int32_t>::min());
      CHECK(co_await to.template read_big<std::uint64_t>() ==
            std::numeric_limits<std::uint64_t>::max() - 1);
      CHECK(co_await to.template read_big<std::int64_t>() == -3);
    };
    auto [a, b] = stream_pair();
    co_await exchange(a, b);
    auto [c, d] = link_pair();
    co_await exchange(c, d);
    co_await send_frame(c, "a frame");
    CHECK(co_await read_frame(d) == "a frame");
  });
}

TEST_CASE("an integer that the end cuts short is an error, and so is the end before it") {
  on_each_engine([]() -> Task<> {
    for (const std::string_view part : {"", "abc"}) {
      auto [a, b] = stream_pair();
      co_await a.send(part);
      co_await a.shutdown();
      auto [error, value] = co_await as_tuple(b.read_big<std::uint32_t>());
      CHECK(error == std::errc::connection_aborted);
      CHECK(value == 0);
      bool thrown = false;
      try {
        (void)co_await b.read_big<std::uint32_t>();
      } catch (const std::system_error& failure) {
        thrown = failure.code() == std::errc::connection_aborted;
      }
      CHECK(thrown);
      CHECK((co_await b.read()).view() == part);
    }
    PairedStream none;
    auto [error, value] = co_await as_tuple(none.read_big<std::uint16_t>());
    CHECK(error == weir::errc::closed_here);
  });
}

TEST_CASE("an integer that is dropped half read stays unread") {
  struct Scenario {
    Task<> task() {
      group.spawn(send());
      CHECK(co_await ends.b.read_big<std::uint32_t>() == 0x61626364);
    }
    Task<> send() {
      co_await ends.a.send("ab");
      co_await turns(1);
      co_await ends.a.send("cd");
    }
    Task<> afterwards(bool finished) {
      if (finished) co_return;
      co_await group.join();
      CHECK(co_await ends.b.read_big<std::uint32_t>() == 0x61626364);
    }
    StreamEnds ends = stream_pair();
    TaskGroup group;
  };
  drop_everywhere([] { return std::make_unique<Scenario>(); });
}
