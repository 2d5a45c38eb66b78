// Echo with one feature of weir in its path, for gate.py: what each costs, in instructions,
// allocations and idle bytes. SIGUSR1 makes it say how often it has allocated and how many bytes it
// has.
//
// weir_features --port N [--engine uring|epoll] [--feature NAME]
#include <weir/weir.h>

#include <malloc.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <new>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

using namespace weir;
using namespace std::chrono_literals;

// ---- what is allocated
// ----------------------------------------------------------------------------

namespace {

std::atomic<std::size_t> allocations{0};
std::atomic<std::size_t> bytes{0};

void* allocate(std::size_t size, std::size_t alignment) {
  void* memory = alignment == 0 ? std::malloc(size) : std::aligned_alloc(alignment, size);
  if (memory == nullptr) throw std::bad_alloc();
  allocations.fetch_add(1, std::memory_order_relaxed);
  bytes.fetch_add(::malloc_usable_size(memory), std::memory_order_relaxed);
  return memory;
}

void release(void* memory) noexcept {
  if (memory == nullptr) return;
  bytes.fetch_sub(::malloc_usable_size(memory), std::memory_order_relaxed);
  std::free(memory);
}

// As snprintf, which a handler of signals must not call.
char* put_number(char* at, std::size_t number) {
  char digits[20];
  std::size_t count = 0;
  do {
    digits[count++] = static_cast<char>('0' + number % 10);
    number /= 10;
  } while (number > 0);
  while (count > 0) *at++ = digits[--count];
  return at;
}

void say_allocated(int /*signal*/) {
  char line[64];
  char* at = put_number(line, allocations.load());
  *at++ = ' ';
  at = put_number(at, bytes.load());
  *at++ = '\n';
  (void)!::write(STDOUT_FILENO, line, static_cast<std::size_t>(at - line));
}

}  // namespace

void* operator new(std::size_t size) { return allocate(size, 0); }
void* operator new(std::size_t size, std::align_val_t alignment) {
  return allocate(size, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { release(memory); }
void operator delete(void* memory, std::size_t /*size*/) noexcept { release(memory); }
void operator delete(void* memory, std::align_val_t /*alignment*/) noexcept { release(memory); }
void operator delete(void* memory, std::size_t /*size*/, std::align_val_t /*alignment*/) noexcept {
  release(memory);
}

// ---- the features
// ---------------------------------------------------------------------------------

namespace {

Task<> plain(TcpConnection conn) {
  while (Chunk data = co_await conn.read()) co_await conn.send(std::move(data));
}

Task<> high_water(TcpConnection conn) {
  conn.on_high_water([](std::size_t /*pending*/) {});
  co_await plain(std::move(conn));
}

// As a server that pushes to its clients as well: it has one, and answers by itself.
Task<> with_sender(TcpConnection conn) {
  const Sender sender = conn.sender();
  while (Chunk data = co_await conn.read()) co_await conn.send(std::move(data));
}

Task<> two_segments_once(TcpConnection conn) {
  bool first = true;
  while (Chunk data = co_await conn.read()) {
    if (std::exchange(first, false) && data.size() > 1) {
      const std::string_view all = data.view();
      const std::array parts = {all.substr(0, 1), all.substr(1)};
      co_await conn.send(parts);
    } else {
      co_await conn.send(std::move(data));
    }
  }
}

Task<> send_view(TcpConnection conn) {
  while (Chunk data = co_await conn.read()) co_await conn.send(data.view());
}

Task<> send_string(TcpConnection conn) {
  while (Chunk data = co_await conn.read()) co_await conn.send(std::string(data.view()));
}

Task<> head_and_body(TcpConnection conn) {
  while (Chunk data = co_await conn.read()) {
    const std::string_view all = data.view();
    co_await conn.send(all.substr(0, all.size() / 4));
    co_await conn.send(all.substr(all.size() / 4));
  }
}

Task<> read_or_drain(TcpConnection conn) {
  for (;;) {
    auto first = co_await when_any(conn.read(), conn.draining());
    if (first.index() == 1 || !std::get<0>(first)) co_return;
    co_await conn.send(std::move(std::get<0>(first)));
  }
}

Task<> with_deadline(TcpConnection conn) {
  while (Chunk data = co_await timeout(30s, conn.read())) co_await conn.send(std::move(data));
}

Task<> without_exceptions(TcpConnection conn) {
  for (;;) {
    auto [error, data] = co_await as_tuple(timeout(30s, conn.read()));
    if (error || !data) co_return;
    co_await conn.send(std::move(data));
  }
}

Task<Chunk> next_message(TcpConnection& conn) { co_return co_await conn.read(); }

Task<> nested_task(TcpConnection conn) {
  while (Chunk data = co_await next_message(conn)) co_await conn.send(std::move(data));
}

// A real protocol's: lines, each with a deadline, until the server drains; answers of head and
// body.
Task<> protocol(TcpConnection conn) {
  for (;;) {
    auto first = co_await when_any(timeout(30s, conn.read_until("\n", 8192)), conn.draining());
    if (first.index() == 1 || !std::get<0>(first)) co_return;
    const Chunk line = std::move(std::get<0>(first));
    const std::string_view all = line.view();
    co_await conn.send(all.substr(0, all.size() / 4));
    co_await conn.send(all.substr(all.size() / 4));
  }
}

using Handler = Task<> (*)(TcpConnection);

}  // namespace

int main(int argc, char** argv) try {
  const std::map<std::string_view, Handler> features = {
      {"plain", plain},
      {"high_water", high_water},
      {"sender", with_sender},
      {"two_segments_once", two_segments_once},
      {"send_view", send_view},
      {"send_string", send_string},
      {"head_and_body", head_and_body},
      {"when_any", read_or_drain},
      {"timeout", with_deadline},
      {"as_tuple", without_exceptions},
      {"nested_task", nested_task},
      {"protocol", protocol},
  };
  std::string port = "0";
  Handler handler = plain;
  LoopOptions loop;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view name = argv[i];
    if (name == "--port") port = argv[i + 1];
    if (name == "--feature") handler = features.at(argv[i + 1]);
    if (name == "--engine") {
      loop.engine = std::string_view(argv[i + 1]) == "epoll" ? Engine::epoll : Engine::uring;
    }
  }
  std::signal(SIGUSR1, say_allocated);
  TcpServer server({.address = SocketAddress::parse("127.0.0.1:" + port), .loop = loop});
  server.listen();
  std::printf("listening on %s\n", server.address().to_string().c_str());
  std::fflush(stdout);
  server.run(handler);
} catch (const std::exception& error) {
  std::fprintf(stderr, "weir_features: %s\n", error.what());
  return 1;
}
