// How `co_await` may be written, with the compilers in use: each case here goes wrong somewhere if
// the spelling, or the type behind it, is another one (GCC 12.2; see CONTRIBUTING).
#include <weir/core/sleep.h>
#include <weir/coro/as_tuple.h>
#include <weir/coro/async_generator.h>
#include <weir/coro/event.h>
#include <weir/coro/task.h>
#include <weir/coro/timeout.h>
#include <weir/coro/when_all.h>
#include <weir/coro/when_any.h>

#include <doctest/doctest.h>

#include <functional>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include "../support/tracer.h"
#include "../support/virtual_loop.h"

using namespace weir;
using test::Tracer;
using test::VirtualLoop;

namespace {

Task<bool> truth(bool value) {
  co_await yield();
  co_return value;
}

Task<int> number(int value) {
  co_await yield();
  co_return value;
}

Task<std::optional<int>> below(int& counter, int most) {
  co_await yield();
  if (counter >= most) co_return std::nullopt;
  co_return counter++;
}

Task<> in_an_if(int& reached) {
  if (bool yes = co_await truth(true); yes) ++reached;
  if (bool yes = co_await truth(false); !yes) ++reached;
}

Task<> in_a_while_with_a_variable(int& reached) {
  while (auto item = co_await below(reached, 3)) (void)item;
  ++reached;
}

Task<> in_a_switch(int& reached) {
  switch (int value = co_await number(2); value) {
    case 2:
      ++reached;
      break;
    default:
      reached = 100;
  }
}

Task<> in_a_for(int& reached) {
  bool go = co_await truth(true);
  for (; go; go = co_await truth(reached < 3)) ++reached;  // weir-lint: allow(await-condition)
}

Task<> in_a_do(int& reached) {
  bool again = false;
  do {
    again = ++reached < 3;
    co_await yield();
  } while (again);
}

Task<> on_both_sides_of_and(int& reached) {
  const bool left = co_await truth(true);
  const bool both = left && co_await truth(true);
  if (both) ++reached;
  const bool either = co_await truth(false) || co_await truth(true);
  if (either) ++reached;
}

Task<> in_a_structured_binding(int& reached) {
  auto [error, value] = co_await as_tuple(number(4));
  if (!error) reached = value;
}

Task<> in_a_condition_of_a_structured_binding(int& reached) {
  if (auto [error, value] = co_await as_tuple(number(4)); !error) reached = value;
}

Task<> in_an_argument(int& reached) {
  const auto sum = [](int a, int b) { return a + b; };
  reached = sum(co_await number(1), co_await number(2));
}

Task<> in_a_return_value(int& reached) {
  const auto twice = []() -> Task<int> { co_return 2 * co_await number(3); };
  reached = co_await twice();
}

/// An options struct as the library's are: an aggregate, trivially destructible.
struct Options {
  int size = 1;
  Duration delay{};
};
static_assert(std::is_aggregate_v<Options> && std::is_trivially_destructible_v<Options>);

Task<int> size_of(Options options) {
  co_await sleep(options.delay);
  co_return options.size;
}

Task<int> take(Tracer tracer, std::function<int()> function) {
  co_await yield();
  (void)tracer;
  co_return function();
}

}  // namespace

TEST_CASE("every spelling of co_await in a condition that the rules allow goes on behind it") {
  VirtualLoop loop;
  const auto reached_by = [&loop](Task<> (*shape)(int&)) {
    int reached = 0;
    loop.run(shape(reached));
    return reached;
  };
  CHECK(reached_by(in_an_if) == 2);
  CHECK(reached_by(in_a_while_with_a_variable) == 4);
  CHECK(reached_by(in_a_switch) == 1);
  CHECK(reached_by(in_a_for) == 3);
  CHECK(reached_by(in_a_do) == 3);
  CHECK(reached_by(on_both_sides_of_and) == 2);
  CHECK(reached_by(in_a_structured_binding) == 4);
  CHECK(reached_by(in_a_condition_of_a_structured_binding) == 4);
  CHECK(reached_by(in_an_argument) == 3);
  CHECK(reached_by(in_a_return_value) == 6);
}

TEST_CASE("options in braces may stand inside a co_await expression") {
  VirtualLoop loop;
  const auto body = []() -> Task<int> {
    const int plain = co_await size_of({.size = 5});
    const int nested =
        co_await timeout(std::chrono::seconds(9), size_of({.size = 6, .delay = Duration(5)}));
    co_return plain * 10 + nested;
  };
  CHECK(loop.run(body()) == 56);
}

TEST_CASE("temporaries with constructors are destroyed once in a co_await expression") {
  VirtualLoop loop;
  Tracer::Counts counts;
  const auto body = [&]() -> Task<int> {
    const auto three = [tracer = Tracer(counts)] { return 3; };  // named first: it has captures
    int sum = co_await take(Tracer(counts), three);
    sum += co_await timeout(std::chrono::seconds(1), take(Tracer(counts), three));
    auto [error, value] = co_await as_tuple(take(Tracer(counts), three));
    sum += value;
    auto [first, second] =
        co_await when_all(take(Tracer(counts), three), take(Tracer(counts), three));
    sum += first + second;
    const auto any = co_await when_any(take(Tracer(counts), three), take(Tracer(counts), three));
    co_return sum + static_cast<int>(any.index());
  };
  CHECK(loop.run(body()) == 15);
  CHECK(counts.made > 0);
  CHECK(counts.alive() == 0);
}

TEST_CASE("an outcome is destroyed once, bound or not") {
  VirtualLoop loop;
  Tracer::Counts counts;
  const auto give = [&]() -> Task<std::optional<Tracer>> {
    co_await yield();
    co_return Tracer(counts);
  };
  const auto body = [&]() -> Task<> {
    {
      auto [error, value] = co_await as_tuple(give());
      CHECK(value.has_value());
    }
    CHECK(counts.alive() == 0);
    (void)co_await as_tuple(give());
    CHECK(counts.alive() == 0);
    const auto moved = (co_await as_tuple(give())).value;
    CHECK(counts.alive() == 1);
  };
  loop.run(body());
  CHECK(counts.alive() == 0);
}

TEST_CASE("what is bound to names in a loop is destroyed once in each round, however it is left") {
  VirtualLoop loop;
  Tracer::Counts counts;
  const auto give = [&](bool at_once) -> Task<std::optional<Tracer>> {
    if (!at_once) co_await yield();
    co_return Tracer(counts);
  };
  int bound = 0;
  const auto body = [&]() -> Task<> {
    for (int round = 0; round < 6; ++round) {
      const bool at_once = round % 2 == 0;
      auto [first, second] = co_await when_all(give(at_once), give(true));
      auto&& [third, fourth] = co_await when_all(give(true), give(at_once));
      const auto [fifth, number] = co_await when_all(give(at_once), truth(true));
      bound += first.has_value() + second.has_value() + third.has_value() + fourth.has_value() +
               fifth.has_value();
      CHECK(counts.alive() == 5);
      if (round == 2) continue;
      auto [error, kept] = co_await as_tuple(give(at_once));
      CHECK(counts.alive() == 6);
      if (round == 4) break;
      co_await yield();
    }
    CHECK(counts.alive() == 0);
    int rounds = 0;
    do {
      auto [first, second] = co_await when_all(give(false), give(true));
      if (first.has_value()) continue;
      bound = 0;
    } while (++rounds < 3);
    for (auto [first, second] = co_await when_all(give(false), give(true)); rounds < 6; ++rounds) {
      auto [again, nothing] = co_await when_all(give(true), yield());
      CHECK(counts.alive() == 3);
    }
    CHECK(counts.alive() == 0);
  };
  loop.run(body());
  CHECK(bound == 25);
  CHECK(counts.alive() == 0);
}

TEST_CASE("a lambda's captures live as long as the lambda, whatever becomes of its coroutine") {
  VirtualLoop loop;
  const std::string text = "a text that is too long for the small string's own place";
  const auto body = [text]() -> Task<std::size_t> {
    co_await yield();
    co_return text.size();
  };
  CHECK(loop.run(body()) == text.size());
}
