// What an inspector shows of what came last on each loop.
#include <weir/inspect.h>

#include <doctest/doctest.h>

#include <atomic>
#include <coroutine>
#include <exception>
#include <optional>
#include <string>
#include <string_view>

#include "../support/inspected.h"

using namespace weir;
using namespace weir::test;

namespace {

/// Whether the text has these, one behind the other.
bool has_in_order(std::string_view text, std::initializer_list<std::string_view> parts) {
  std::size_t at = 0;
  for (const std::string_view part : parts) {
    at = text.find(part, at);
    CAPTURE(part);
    CHECK(at != std::string_view::npos);
    if (at == std::string_view::npos) return false;
    at += part.size();
  }
  return true;
}

AsyncGenerator<int> count_with_waits() {
  for (int i = 0; i < 3; ++i) {
    co_await yield();
    co_yield i;
  }
}

/// A coroutine of another library's: what its promise begins with is a table of functions.
struct Stranger {
  struct Virtual {
    virtual void first() {}
    virtual void second() {}

   protected:
    ~Virtual() = default;
  };
  struct promise_type final : Virtual {
    static Stranger get_return_object() { return {}; }
    static std::suspend_never initial_suspend() noexcept { return {}; }
    static std::suspend_never final_suspend() noexcept { return {}; }
    static void return_void() {}
    [[noreturn]] static void unhandled_exception() { std::terminate(); }
  };
};

Stranger wait_as_stranger() { co_await sleep(1ms); }

Task<> await_both() {
  AsyncGenerator<int> numbers = count_with_waits();
  for (int i = 0; i < 4; ++i) {
    const std::optional<int> next = co_await numbers.next();
    CHECK(next.has_value() == (i < 3));
  }
  auto both = co_await when_all(yield(), yield());
  (void)both;
  wait_as_stranger();
  co_await sleep(5ms);
}

}  // namespace

TEST_CASE("what tasks and connections did last is shown in its order, with place and reason") {
  for_each_engine([](Engine engine) {
    const Inspector inspector({.address = loopback()});
    ServerThread server(server_options(engine), echo);
    Peer peer = server.connect();
    CHECK(echoes(peer));
    peer.reset();
    std::string events;
    CHECK(eventually([&] { return has(events = get(inspector, "/events"), " broke: "); }));
    CAPTURE(events);
    CHECK(has(events, "\": its last "));
    CHECK(has_in_order(events,
                       {" began\n", "connection 1 opened\n", " resumed in weir::test::echo at ",
                        "net_server.h:", "connection 1 broke: Connection reset by peer\n"}));
    const std::string json = get(inspector, "/events", "application/json");
    CAPTURE(json);
    CHECK(has(json, R"("event":"opened","connection":1)"));
    CHECK(has(json, R"("event":"broke","connection":1,"why":"Connection reset by peer")"));
    CHECK(has(json, R"(,"function":"weir::test::echo","file":")"));
  });
}

TEST_CASE("of a generator it is shown where it waited, of what is no coroutine of weir's nothing") {
  for_each_engine([](Engine engine) {
    const Inspector inspector({.address = loopback()});
    Inspected inspected(engine);
    inspected.loop().post([&] { inspected.loop().spawn(await_both()); });
    std::string events;
    CHECK(eventually([&] { return has(events = get(inspector, "/events"), " ended\n"); }));
    CAPTURE(events);
    CHECK(has_in_order(events, {" resumed in ", "count_with_waits at ", "inspector_events.cpp:",
                                " resumed in ", "await_both at ", " resumed in an operand\n",
                                " resumed\n", " resumed in ", "await_both at ", " ended\n"}));
    CHECK(!has(events, "\\x"));
    inspected.thread.stop();
  });
}

TEST_CASE("of a loop that is stuck it is shown what came before") {
  for_each_engine([](Engine engine) {
    const Inspector inspector({.address = loopback()});
    Inspected inspected(engine);
    std::atomic<bool> goes_on{false};
    const auto compute = [&]() -> Task<> {
      co_await yield();
      while (!goes_on) continue;
    };
    inspected.loop().post([&] { inspected.loop().spawn(compute); });
    std::string events;
    CHECK(eventually([&] {
      events = get(inspector, "/events");
      return has(events, " resumed in ");
    }));
    CAPTURE(events);
    CHECK(has_in_order(
        events, {"\"inspected\": its last ", " began\n", " resumed in ", "inspector_events.cpp:"}));
    goes_on = true;
    inspected.thread.stop();
  });
}
