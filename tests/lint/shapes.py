#!/usr/bin/env python3
"""Tries on compilers the shapes of co_await that docs/compilers.md says GCC 12 miscompiles.

usage: shapes.py COMPILER...

Prints for each compiler, at -O0 and -O2, the shapes that it gets wrong, and how. Fails if Clang gets any wrong, or
GCC 12 others than those that weir-lint and the page are about.
"""

import pathlib
import re
import subprocess
import sys
import tempfile

PROGRAM = r"""
#include <array>
#include <coroutine>
#include <cstdio>
#include <string_view>
#include <utility>

static int live = 0;
struct Counted {
  Counted() { ++live; }
  Counted(const Counted&) { ++live; }
  Counted(Counted&&) { ++live; }
  ~Counted() { --live; }
};
struct Item { int number; Counted counted; };
struct Made { Made(int, Counted given) : counted(given) {} Counted counted; };

struct Task {
  struct promise_type {
    Task get_return_object() { return {std::coroutine_handle<promise_type>::from_promise(*this)}; }
    std::suspend_always initial_suspend() { return {}; }
    std::suspend_always final_suspend() noexcept { return {}; }
    std::suspend_always yield_value(Item) { return {}; }
    void return_void() {}
    void unhandled_exception() {}
  };
  std::coroutine_handle<promise_type> handle;
};
template <class T>
struct Awaitable {
  bool await_ready() { return false; }
  void await_suspend(std::coroutine_handle<>) {}
  T await_resume() { return T(); }
};
struct Truth {
  bool await_ready() { return false; }
  void await_suspend(std::coroutine_handle<>) {}
  bool await_resume() { return true; }
};

Awaitable<int> take(Item) { return {}; }
Awaitable<int> take_made(Made) { return {}; }
Awaitable<int> take_pair(std::pair<int, Counted>) { return {}; }
Awaitable<int> take_array(std::array<Counted, 2>) { return {}; }
Awaitable<int> take_number(int) { return {}; }
template <class F> Awaitable<int> take_function(F) { return {}; }
int look_at(const Item&) { return 1; }
void keep(Item, int = 0) {}

static int reached = 0;
#define SHAPE(name, text, ...) Task name(Counted& c) { (void)c; __VA_ARGS__ }
SHAPES
#undef SHAPE

static void run(const char* text, Task (*shape)(Counted&)) {
  live = reached = 0;
  {
    Counted counted;
    Task task = shape(counted);
    for (int turns = 0; turns < 100 && !task.handle.done(); ++turns) task.handle.resume();
    if (!task.handle.done()) ++reached;
    task.handle.destroy();
  }
  const char* how = reached != 0 ? "never ends" : live < 0 ? "destroyed twice" : live > 0 ? "leaked" : nullptr;
  if (how != nullptr) std::printf("%s: %s\n", how, text);
}

int main(int, char** argv) {
#define SHAPE(name, text, ...) if (argv[1] == std::string_view(#name)) run(text, name);
SHAPES
}
"""

# Name, code, and whether GCC 12 gets it wrong.
SHAPES = [
    ("condition", "reached = -1; if (co_await Truth()) reached = 0;", True),
    ("argument", "co_await take(Item{1, c});", True),
    ("braced_argument", "co_await take({1, c});", True),
    ("parenthesised_argument", "co_await take(Item(1, c));", True),
    ("empty_argument", "co_await take({});", True),
    ("nested_argument", "co_await take_number(look_at({1, c}));", True),
    ("array", "co_await take_array({c, c});", True),
    ("neighbour", "keep(Item{1, c}, co_await take_number(1));", True),
    ("await_in_braces", "keep({co_await take_number(1), c});", True),
    ("variable_with_await", "Item item{co_await take_number(1), c}; (void)item;", True),
    ("yielded", "co_yield {1, c};", True),
    ("lambda", "co_await take_function([c] { (void)c; });", True),
    ("conditional", "Counted d = live > 0 ? co_await Awaitable<Counted>() : Counted(); (void)d;", True),
    ("constructor", "co_await take_made(Made{1, c});", False),
    ("pair", "co_await take_pair({1, c});", False),
    ("reference_lambda", "co_await take_function([&c] { (void)c; });", False),
    ("named", "Item item{1, c}; co_await take(item);", False),
]


def main(compilers):
    good = True
    lines = [f'SHAPE({name}, "{code}", {code})' for name, code, _ in SHAPES]
    source = PROGRAM.replace("SHAPES", "\n".join(lines))
    expected = {name for name, _, wrong in SHAPES if wrong}
    with tempfile.TemporaryDirectory() as directory:
        file = pathlib.Path(directory) / "shapes.cpp"
        file.write_text(source, encoding="utf-8")
        for compiler in compilers:
            version = subprocess.run([compiler, "--version"], check=True, capture_output=True,
                                     text=True).stdout.splitlines()[0]
            for level in ("-O0", "-O2"):
                program = pathlib.Path(directory) / "shapes"
                subprocess.run([compiler, "-std=c++20", "-w", level, file, "-o", program], check=True)
                wrong = {}
                for name, code, _ in SHAPES:
                    done = subprocess.run([program, name], capture_output=True, text=True)
                    if done.returncode != 0 or done.stdout:
                        wrong[name] = done.stdout.strip() or f"crashes: {code}"
                print(f"{version}, {level}: {len(wrong)} of {len(SHAPES)} shapes are wrong")
                for text in wrong.values():
                    print(f"  {text}")
                names = set(wrong)
                if "clang" in version:
                    good = good and not names
                elif re.search(r"\b12\.\d+\.\d+", version):
                    good = good and names == expected
    return 0 if good else 1


sys.exit(main(sys.argv[1:]))
