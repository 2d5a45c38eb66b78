// A program with what makes servers hang: for those who look into it. planted [ADDRESS]: two
// tasks that wait for each other's mutex, one that receives from a channel that nobody fills, a
// client that does not read, a race that nobody wins, and a loop that is blocked. It has an
// inspector at the address, or the one of its environment, says "planted" when all wait, and ends
// with its standard input.
#include <weir/inspect.h>
#include <weir/weir.h>

#include <unistd.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <optional>
#include <string>
#include <utility>

using namespace weir;

/// For who looks at values.
namespace shown {
extern const SocketAddress an_address;
extern const Chunk a_chunk;
extern Task<int> a_task;

const SocketAddress an_address = SocketAddress::parse("[::1]:7000");
const Chunk a_chunk(detail::BufferRef(), reinterpret_cast<const std::byte*>("PING\r\n"), 6);
Task<int> a_task;
}  // namespace shown

namespace {

Task<> wait_for_both(Mutex& first, Mutex& second, Event& have_first, Event& have_second) {
  const auto one = co_await first.lock();
  have_first.set();
  co_await have_second.wait();
  const auto two = co_await second.lock();
}

Task<> deadlock() {
  Mutex a;
  Mutex b;
  Event have_a;
  Event have_b;
  TaskGroup group;
  group.spawn(wait_for_both(a, b, have_a, have_b));
  group.spawn(wait_for_both(b, a, have_b, have_a));
  co_await group.join();
}

Task<int> next_job(Channel<int>& jobs) {
  const auto job = co_await jobs.receive();
  co_return job.value_or(0);
}

Task<int> begin_later() { co_return 0; }

Task<> work(Channel<int>& jobs) {
  for (;;) {
    const int job = co_await next_job(jobs);
    (void)job;
  }
}

Task<> race(Channel<int>& jobs) {
  auto first = co_await when_any(next_job(jobs), sleep(1h));
  (void)first;
}

Task<> tell_for_ever(TcpConnection connection, Event& full) {
  connection.on_high_water([&] { full.set(); });
  const std::string much(std::size_t{64} << 10, 'x');
  for (;;) co_await connection.send(std::string_view(much));
}

/// Never reads.
Task<> be_silent(SocketAddress server, Event& connected) {
  const TcpConnection connection = co_await connect(server.to_string());
  connected.set();
  Event never;
  co_await never.wait();
}

Task<> compute(std::promise<void>& begun, std::shared_future<void> released) {
  begun.set_value();
  released.wait();
  co_return;
}

Task<> plant() {
  EventLoop& loop = EventLoop::current();
  Channel<int> jobs(1);
  Event connected;
  ServerOptions options;
  options.address = SocketAddress::parse("127.0.0.1:0");
  options.name = "teller";
  TcpServer server(loop, options);
  Event full;
  server.start(
      [&](TcpConnection connection) { return tell_for_ever(std::move(connection), full); });
  TaskGroup group;
  group.spawn(deadlock());
  for (int i = 0; i < 3; ++i) group.spawn(work(jobs));
  group.spawn(race(jobs));
  group.spawn(be_silent(server.address(), connected));
  co_await connected.wait();
  co_await full.wait();
  std::promise<void> begun;
  std::promise<void> release;
  LoopOptions unwatched;
  unwatched.name = "busy";
  unwatched.stall = 0ms;
  EventLoopThread other(unwatched);
  other.loop().spawn(compute(begun, release.get_future().share()));
  begun.get_future().wait();
  std::puts("planted");
  std::fflush(stdout);
  co_await readable(STDIN_FILENO);
  release.set_value();
  loop.stop();
}

}  // namespace

int main(int argc, char** argv) {
  std::optional<Inspector> inspector;
  if (argc > 1) inspector.emplace(InspectorOptions{SocketAddress::parse(argv[1])});
  shown::a_task = begin_later();
  EventLoop loop({.name = "main"});
  loop.spawn(plant());
  loop.run();
}
