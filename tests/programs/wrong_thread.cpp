// Uses what belongs to a loop from another thread while the loop runs: the library ends the
// process and says what to use instead. The argument names the use.
#include <weir/core/loop_thread.h>
#include <weir/core/on.h>
#include <weir/core/sleep.h>
#include <weir/coro/event.h>
#include <weir/coro/mutex.h>
#include <weir/coro/semaphore.h>
#include <weir/coro/task_group.h>
#include <weir/net/tcp_connection.h>

#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <utility>

using namespace weir;

namespace {

/// Lives on the loop that runs `body`; the others are called on a thread that has no loop.
struct Objects {
  Event event;
  Semaphore semaphore{1};
  Mutex mutex;
  TaskGroup group;
};

Task<> wait_for(Event& event) { co_await event.wait(); }
Task<> take(Semaphore& semaphore) { const auto permit = co_await semaphore.acquire(); }
Task<> lock(Mutex& mutex) { const auto held = co_await mutex.lock(); }
Task<> hold() { co_await sleep(1h); }
Task<> join(TaskGroup& group) { co_await group.join(); }

Task<> read(TcpConnection& conn) { co_await conn.read(); }
Task<> send(TcpConnection& conn) { co_await conn.send("text"); }

TcpConnection make_connection(const std::string& unread) {
  int ends[2] = {-1, -1};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0) std::abort();
  if (::write(ends[1], unread.data(), unread.size()) < 0) std::abort();
  return TcpConnection(Socket(EventLoop::current().sockets(), ends[0]));
}

Task<> body(const std::string& use) {
  Objects objects;
  TcpConnection connection = make_connection("");
  TcpConnection full = make_connection("small" + std::string(10'000, 'x'));
  Chunk copied = co_await full.peek(8000);
  Chunk small = co_await full.read_exactly(5);
  Chunk leased = co_await full.read();
  Chunk empty = co_await full.read_exactly(0);
  auto permit = co_await objects.semaphore.acquire();
  auto held = co_await objects.mutex.lock();
  objects.group.spawn(wait_for(objects.event));
  objects.group.spawn(take(objects.semaphore));
  objects.group.spawn(lock(objects.mutex));
  EventLoopThread other;
  const auto call = [&] {
    if (use == "set") objects.event.set();
    if (use == "release") permit.release();
    if (use == "unlock") held.release();
    if (use == "spawn") objects.group.spawn(hold());
    if (use == "cancel") objects.group.cancel();
    if (use == "wait") other.loop().spawn(wait_for(objects.event));
    if (use == "acquire") other.loop().spawn(take(objects.semaphore));
    if (use == "lock") other.loop().spawn(lock(objects.mutex));
    if (use == "close") connection.close();
    if (use == "read") other.loop().spawn(read(connection));
    if (use == "send") other.loop().spawn(send(connection));
    if (use == "give back") leased = Chunk();
    if (use == "give back a copy") copied = Chunk();
    if (use == "move") const Chunk taken = std::move(small);
    if (use == "slice") const Chunk part = leased.slice(0, 1);
    if (use == "empty") const Chunk taken = std::move(empty);
    if (use == "join") other.loop().spawn(join(objects.group));
  };
  if (use == "none") co_return;
  std::thread(call).join();
  if (use == "empty") co_return;
  co_await hold();
}

}  // namespace

int main(int count, char** arguments) {
  const std::string use = count > 1 ? arguments[1] : "none";
  run(body(use));
  std::puts("nothing was said");
}
