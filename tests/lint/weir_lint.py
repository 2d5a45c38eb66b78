#!/usr/bin/env python3
"""What weir-lint finds and what it lets pass.

usage: weir_lint.py WEIR_LINT

Each line of FOUND that ends in a comment `// RULE` must be found, by that rule; nothing else there, and
nothing in CLEAN.
"""

import pathlib
import re
import subprocess
import sys
import tempfile

FOUND = r"""
Task<> conditions(TcpConnection conn) {
  if (co_await ready()) go();                                          // await-condition
  if (!co_await ready()) go();                                         // await-condition
  if (one && co_await ready()) go();                                   // await-condition
  if (bool ok = true; co_await ready() == ok) go();                    // await-condition
  while (co_await ready()) go();                                       // await-condition
  do {
    go();
  } while (co_await ready());                                          // await-condition
  for (int i = 0; co_await ready(); ++i) go();                         // await-condition
  for (bool more = true; more; more = co_await ready()) go();          // await-condition
  switch (co_await number()) { default: go(); }                        // await-condition
}

Task<> temporaries(Channel<Item>& channel, std::string text, int number) {
  co_await channel.send({number, text});                               // await-temporary
  co_await channel.send({1, "text"});                                  // await-temporary
  co_await channel.send(Item{1, std::string("text")});                 // await-temporary
  co_await channel.send({.number = 1, .text = text});                  // await-temporary
  bool sent = co_await channel.send(Item{number, std::move(text)});    // await-temporary
  auto [error, done] = co_await as_tuple(channel.send({1, text}));     // await-temporary
  co_await timeout(1s, channel.send({1, text}));                       // await-temporary
  co_await pair(std::array<std::string, 2>{text, text});               // await-temporary
  co_await channel
      .send({number,                                                   // await-temporary
             text});
  items.push_back({co_await length(), text});                          // await-temporary
  items.push_back(Item{co_await length(), text});                      // await-temporary
  Item item{co_await length(), text};                                  // await-temporary
  Item other = {co_await length(), text};                              // await-temporary
  use(Item{1, text}, co_await length());                               // await-temporary
  if (bool ok = co_await channel.send({1, text}); ok) go();            // await-temporary
  while (auto reply = co_await ask({1, text})) go();                   // await-temporary
  co_return co_await length_of({1, text});                             // await-temporary
}

AsyncGenerator<Item> generated(std::string text) {
  co_yield {1, text};                                                  // await-temporary
  co_yield Item{1, text};                                              // await-temporary
}

Task<> lambdas(std::string text) {
  co_await blocking([text] { return text.size(); });                   // await-lambda
  co_await blocking([=] { return text.size(); });                      // await-lambda
  co_await blocking([text = std::move(text)]() mutable { use(text); });  // await-lambda
  co_await timeout(1s, blocking([&, text] { use(text); }));            // await-lambda
  auto size = co_await blocking([text]() -> std::size_t { return text.size(); });  // await-lambda
  co_await client.run([text](TcpConnection& conn) -> Task<> {          // await-lambda
    co_await conn.send(text);
  });
}

Task<> conditionals(TcpConnection& conn, bool first) {
  Chunk chunk = first ? co_await conn.read() : Chunk();                // await-conditional
  Chunk other = first ? Chunk() : co_await conn.read();                // await-conditional
  Chunk third = co_await number() ? Chunk() : Chunk();                 // await-conditional
}

void Server::start(EventLoop& loop, TaskGroup& group, std::string text) {
  group.spawn([text]() -> Task<> { co_await say(text); }());           // lambda-coroutine
  group.spawn([&]() -> Task<> { co_await say(text); }());              // lambda-coroutine
  loop.spawn([this](int number) -> Task<> {                            // lambda-coroutine
    co_await sleep(1s);
    note(number);
  }(1));
  tasks_.push_back([text]() -> Task<int> { co_return 1; }());          // lambda-coroutine
  auto task = [text]() -> Task<> { co_await say(text); }();            // lambda-coroutine
  const auto work = [this, text]() -> Task<> { co_await say(text); };
  group_.spawn(work());                                                // lambda-coroutine
}

Task<> returned(std::string text) {
  return [text]() -> Task<> { co_await say(text); }();                 // lambda-coroutine
}
"""

CLEAN = r"""
Task<> conditions(TcpConnection conn) {
  if (bool ok = co_await ready(); ok) go();
  if (auto item = co_await next()) go();
  if (const auto [error, data] = co_await as_tuple(conn.read()); error) go();
  while (Chunk data = co_await conn.read()) co_await conn.send(std::move(data));
  for (auto item = co_await next(); item; ++item) go();
  for (int i = 0; i < 3; ++i) co_await ready();
  switch (int number = co_await pick(); number) { default: co_await ready(); }
  // if (co_await ready()) go();
  say("if (co_await ready()) { co_await channel.send({1, text}); }");
  say(R"(while (co_await ready()))");
#define AWAIT if (co_await ready())
}

Task<> temporaries(Channel<Item>& channel, std::string text) {
  Item item{1, text};
  co_await channel.send(item);
  co_await channel.send(std::move(item));
  co_await channel.emplace(1, text);
  co_await Connector(address, {.initial_delay = 500ms, .max_attempts = 3}).connect();
  TcpConnection conn(co_await connector.connect(), {.water_marks = {.high = 1 << 20, .low = low}});
  auto other = co_await connect("example.org:80", {.timeout = limit});
  auto number = co_await signal({SIGINT, SIGTERM});
  co_await move({1, 2});
  co_await move({.x = 1, .y = -2.5e3, .kind = Kind::plain, .next = nullptr, .most = kMost, .where = &place});
  co_await wait({.delay = Duration(5), .limit = std::chrono::seconds(9)});
  co_await conn.send(std::string{"text"});
  co_await conn.send(std::vector<std::byte>{first, second});
  int length{co_await conn.length()};
  std::vector<std::string> words = {text, text};
  co_await all(words);
  struct Local { int a; std::string b; };
  try {
    co_await conn.send(text);
  } catch (const std::exception& error) {
    failure = {1, text};
  }
  if (text.empty()) { co_return; } else { co_await ready(); }
  for (const std::string& word : {text, text}) co_await say(word);
  table[{1, text}] = 2;
  co_await ready();
}

bool Awaiter::operator co_await() && { return {1, text}; }
struct Awaitable {
  auto operator co_await() const { return Awaiter{1, text}; }
};

Task<> lambdas(std::string text, int* place) {
  const auto work = [text] { return text.size(); };
  co_await blocking(work);
  co_await blocking([&] { return text.size(); });
  co_await blocking([&text] { return text.size(); });
  co_await blocking([this] { return size_; });
  co_await blocking([] { return 1; });
  co_await blocking([to = &text, n = 3] { return n; });
  loop.post([text] { say(text); });
  values[co_await number()] = 2;
  co_await client.run([](TcpConnection& conn) -> Task<> { co_await conn.send("hello"); });
  std::sort(begin, end, [text](int a, int b) { return a < b; });
  co_await ready();
}

Task<> conditionals(TcpConnection& conn, bool first) {
  co_await conn.send(first ? "one" : "two");
  co_await conn.send(first ? std::string("one") : text);
  const int number = first ? 1 : 2;
  auto [error, data] = co_await as_tuple(conn.read());
  use(error ? 1 : 2);
}

Task<> coroutines(TaskGroup& outer, EventLoop& loop, std::string text) {
  outer.spawn([text]() -> Task<> { co_await say(text); });
  outer.spawn([](std::string words) -> Task<> { co_await say(words); }(text));
  co_await [&]() -> Task<> { co_await say(text); }();
  co_await when_all([&]() -> Task<> { co_await say(text); }(), sleep(1s));
  run([&]() -> Task<> { co_await say(text); }());
  const auto work = [&]() -> Task<> { co_await say(text); };
  TaskGroup group;
  group.spawn(work());
  outer.spawn(work());
  co_await outer.join();
  server.start([&](TcpConnection conn) -> Task<> { return serve(std::move(conn), text); });
  const auto plain = [text] { return text; };
  use(plain());
  outer.spawn([this]() -> Task<> { co_return; }());  // weir-lint: allow(lambda-coroutine)
}

template <typename T>
class Holder {
  std::vector<T> values_{};
  Task<T> next() { co_return co_await channel_.receive(); }
  Options options_ = {.one = 1, .text = "x"};
};
"""


def lines_found(lint, file):
    done = subprocess.run([sys.executable, lint, file], capture_output=True, text=True)
    found = {}
    for line in done.stdout.splitlines():
        number, rule = re.match(re.escape(str(file)) + r":(\d+): ([\w-]+): \S", line).groups()
        found.setdefault(int(number), set()).add(rule)
    if done.stderr or done.returncode != (1 if found else 0):
        sys.exit(f"FAILED: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return found


def main(lint):
    with tempfile.TemporaryDirectory() as directory:
        failures = []
        for name, text in (("found.cpp", FOUND), ("clean.h", CLEAN)):
            file = pathlib.Path(directory) / name
            file.write_text(text, encoding="utf-8")
            found = lines_found(lint, file)
            for number, line in enumerate(text.splitlines(), start=1):
                mark = re.search(r"// ((?:await|lambda)-\w+)$", line)
                expected = {mark.group(1)} if mark else set()
                if found.get(number, set()) != expected:
                    failures.append(f"{name}:{number}: expected {expected or 'nothing'}, found "
                                    f"{found.get(number) or 'nothing'}: {line.strip()}")
        # A directory is searched, except for builds and hidden ones, and for C++ only.
        tree = pathlib.Path(directory) / "tree"
        for place in ("a/b/x.cc", "build/x.cpp", ".git/x.cpp", "notes.md"):
            (tree / place).parent.mkdir(parents=True, exist_ok=True)
            (tree / place).write_text("Task<> f() { if (co_await g()) h(); }\n", encoding="utf-8")
        listed = subprocess.run([sys.executable, lint, tree], capture_output=True, text=True).stdout
        if [line.split(":")[0] for line in listed.splitlines()] != [str(tree / "a/b/x.cc")]:
            failures.append(f"in a directory: {listed}")
        for arguments, status in ((["/no/such/file"], 2), ([], 2), (["--help"], 0)):
            done = subprocess.run([sys.executable, lint, *arguments], capture_output=True, text=True)
            if done.returncode != status or not done.stdout + done.stderr:
                failures.append(f"{arguments}: exit status {done.returncode}")
    for failure in failures:
        print(f"FAILED: {failure}")
    return 1 if failures else 0


sys.exit(main(sys.argv[1]))
