// read_until: gives what a search in the whole stream gives, wherever the stream is cut, on both
// engines; an error consumes nothing.
#include <weir/weir.h>

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>

#include "input.h"

using namespace weir;
using namespace weir::fuzz;

namespace {

Task<> write_pieces(int fd, std::string_view bytes, std::uint8_t cut) {
  for (Pieces pieces(bytes, cut); !pieces.empty();) {
    const std::string_view piece = pieces.next();
    ssize_t sent = 0;
    while ((sent = ::send(fd, piece.data(), piece.size(), MSG_NOSIGNAL)) < 0 && errno == EAGAIN) {
      co_await yield();  // small pieces fill a socket soon
    }
    require(sent == static_cast<ssize_t>(piece.size()));
    co_await yield();
  }
  ::close(fd);
}

Task<> read_all(TcpConnection conn, std::string_view bytes, std::string_view delimiter,
                std::size_t most) {
  for (std::string_view left = bytes;;) {
    auto [error, chunk] = co_await as_tuple(conn.read_until(delimiter, most));
    const std::size_t found = left.substr(0, most).find(delimiter);
    if (found != std::string_view::npos) {
      require(!error);
      require(chunk.view() == left.substr(0, found + delimiter.size()));
      left.remove_prefix(chunk.size());
      continue;
    }
    require(!chunk);
    if (left.empty()) {
      require(!error);
      co_return;
    }
    // Past the limit, or at an end without delimiter; either way all of it is still there.
    require(error ==
            (left.size() >= most ? std::errc::message_size : std::errc::connection_aborted));
    const std::size_t count = std::min(most, left.size());
    const Chunk kept = co_await conn.read_exactly(count);
    require(kept.view() == left.substr(0, count));
    left.remove_prefix(count);
  }
}

EventLoop& loop_of(Engine engine) {
  static EventLoop epoll({.engine = Engine::epoll, .buffer_size = 64});
  static const std::unique_ptr<EventLoop> uring = []() -> std::unique_ptr<EventLoop> {
    try {
      return std::make_unique<EventLoop>(LoopOptions{.engine = Engine::uring, .buffer_size = 64});
    } catch (const std::system_error&) {
      return nullptr;  // this machine has none
    }
  }();
  return engine == Engine::uring && uring != nullptr ? *uring : epoll;
}

Task<> exchange(int near, int far, std::string_view bytes, std::uint8_t cut,
                std::string_view delimiter, std::size_t most) {
  ConnectionOptions options;
  options.linger = std::chrono::milliseconds(0);
  TcpConnection conn(Socket(near), options);
  co_await timeout(
      std::chrono::seconds(20),
      when_all(write_pieces(far, bytes, cut), read_all(std::move(conn), bytes, delimiter, most)));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  const std::uint8_t choices = input.choice();
  const std::uint8_t cut = input.choice();
  const std::size_t length = 1 + input.choice() % 4;
  const std::size_t most = length + input.choice();
  std::string_view bytes = input.rest().substr(0, 2000);
  if (bytes.size() < length) return 0;
  const std::string_view delimiter = bytes.substr(0, length);
  bytes.remove_prefix(length);
  int ends[2];
  require(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
  EventLoop& loop = loop_of(choices % 2 == 0 ? Engine::epoll : Engine::uring);
  loop.run_until_complete(exchange(ends[0], ends[1], bytes, cut, delimiter, most));
  return 0;
}
