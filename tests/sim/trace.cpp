#include <weir/sim.h>
#include <weir/weir.h>

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <system_error>

#include "../support/sim.h"

using namespace weir;
using namespace weir::test;

namespace {

namespace tracing {

/// Whether the text is one value of JSON (RFC 8259) and nothing else.
class Json {
 public:
  static bool is_valid(std::string_view text) {
    Json json(text);
    return json.value() && (json.spaces(), json.rest_.empty());
  }

 private:
  explicit Json(std::string_view text) : rest_(text) {}

  void spaces() {
    while (!rest_.empty() && std::isspace(static_cast<unsigned char>(rest_.front())) != 0) {
      rest_.remove_prefix(1);
    }
  }
  bool take(char c) {
    spaces();
    if (rest_.empty() || rest_.front() != c) return false;
    rest_.remove_prefix(1);
    return true;
  }
  bool text() {
    if (!take('"')) return false;
    while (!rest_.empty() && rest_.front() != '"') {
      const bool escaped = rest_.front() == '\\';
      if (static_cast<unsigned char>(rest_.front()) < 0x20) return false;
      rest_.remove_prefix(escaped && rest_.size() > 1 ? 2 : 1);
    }
    return take('"');
  }
  bool number() {
    spaces();
    const auto size = std::min(rest_.find_first_not_of("+-.0123456789eE"), rest_.size());
    rest_.remove_prefix(size);
    return size > 0;
  }
  bool list(char end, bool named) {
    if (take(end)) return true;
    do {
      if (named && (!text() || !take(':'))) return false;
      if (!value()) return false;
    } while (take(','));
    return take(end);
  }
  bool value() {
    spaces();
    if (rest_.empty()) return false;
    if (rest_.front() == '"') return text();
    if (take('{')) return list('}', true);
    if (take('[')) return list(']', false);
    return number();
  }

  std::string_view rest_;
};

std::string content_of(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::size_t count(std::string_view text, std::string_view part) {
  std::size_t found = 0;
  for (auto at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++found;
  return found;
}

/// A file for the life of this.
class File {
 public:
  File() {
    std::string name = std::filesystem::temp_directory_path() / "weir-trace-XXXXXX";
    const int fd = ::mkstemp(name.data());
    REQUIRE(fd >= 0);
    ::close(fd);
    path_ = name;
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() { std::remove(path_.c_str()); }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

Task<> say(int times) {
  TcpConnection connection = co_await connect("server:7");
  for (int i = 0; i < times; ++i) {
    co_await connection.send("hello");
    (void)co_await connection.read_exactly(5);
  }
}

std::uint64_t run(sim::World& world, int times) {
  auto& server = world.add_host("10.0.0.1", "server");
  auto& client = world.add_host("10.0.0.2", "a \"client\"\n");
  server.spawn(serve_echo(), "serve");
  client.spawn(say(times), "say");
  world.inject(sim::Fault::short_receive, server);
  world.run_for(1min);
  return world.trace_hash();
}

}  // namespace tracing

}  // namespace

TEST_CASE("a trace has the hosts, connections and tasks, arrows for segments, marks for faults") {
  const tracing::File file;
  {
    sim::World world;
    world.save_trace(file.path());
    tracing::run(world, 50);
  }
  const std::string text = tracing::content_of(file.path());
  REQUIRE(tracing::Json::is_valid(text));
  CHECK(tracing::count(text, R"("name":"process_name")") == 2);
  CHECK(tracing::count(text, R"("args":{"name":"a \u0022client\u0022\u000a"})") == 1);
  CHECK(tracing::count(text, R"("args":{"name":"loop 1"})") == 2);
  const std::size_t arrows = tracing::count(text, R"("ph":"s")");
  CHECK(arrows > 200);  // 100 segments with data, acknowledged
  CHECK(tracing::count(text, R"("ph":"f","bp":"e")") == arrows);
  CHECK(tracing::count(text, R"("ph":"X")") == 2 * arrows);
  CHECK(tracing::count(text, R"("ph":"b","cat":"connection")") == 2);
  CHECK(tracing::count(text, R"("ph":"e","cat":"connection")") == 2);
  CHECK(tracing::count(text, R"("ph":"b","cat":"task","name":"say")") == 1);
  CHECK(tracing::count(text, R"("ph":"b","cat":"task","name":"serve")") == 1);
  CHECK(tracing::count(text, R"("cat":"fault","name":"short receive)") == 1);
}

TEST_CASE("a trace that is asked for late has what happened last") {
  const tracing::File file;
  sim::World world;
  tracing::run(world, 50);
  world.save_trace(file.path());
  const std::string text = tracing::content_of(file.path());
  REQUIRE(tracing::Json::is_valid(text));
  CHECK(tracing::count(text, R"("ph":"s")") > 10);
  CHECK(tracing::count(text, R"("ph":"s")") < 100);
  CHECK(tracing::count(text, R"("ph":"b","cat":"task","name":"say")") == 1);
  world.run_for(1min);
  world.finish();
  CHECK(tracing::Json::is_valid(tracing::content_of(file.path())));
}

TEST_CASE("a trace changes no hash") {
  const tracing::File file;
  const auto hash_of = [&](bool traced) {
    sim::World world({.seed = 3, .faults = sim::Faults::mild()});
    if (traced) world.save_trace(file.path());
    return tracing::run(world, 10);
  };
  CHECK(hash_of(true) == hash_of(false));
}

TEST_CASE("a trace that cannot be written is an error") {
  sim::World world;
  CHECK_THROWS_AS(world.save_trace("/nowhere/at/all"), std::system_error);
  world.finish();
}

TEST_CASE("a trace may be written to several files, which all have the whole run") {
  const tracing::File first;
  const tracing::File second;
  {
    sim::World world;
    world.save_trace(first.path());
    world.save_trace(second.path());
    tracing::run(world, 10);
  }
  const std::string text = tracing::content_of(first.path());
  CHECK(tracing::count(text, R"("ph":"s")") > 10);
  CHECK(text == tracing::content_of(second.path()));
}
