#pragma once

#include <weir/core/sleep.h>
#include <weir/coro/task_group.h>

#include <doctest/doctest.h>

#include <functional>

#include "virtual_loop.h"

namespace weir::test {

/// How often another coroutine got its turn while this one awaited again and again what was ready.
inline int turns_beside(const std::function<Task<>()>& greedy) {
  VirtualLoop loop;
  int turns = 0;
  bool over = false;
  TaskGroup group;
  const auto other = [&]() -> Task<> {
    while (!over) {
      ++turns;
      co_await yield();
    }
  };
  const auto all = [&]() -> Task<> {
    co_await yield();
    co_await greedy();
    over = true;
  };
  group.spawn(all);
  group.spawn(other);
  loop.settle();
  CHECK(over);
  return turns;
}

}  // namespace weir::test
