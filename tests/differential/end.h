#pragma once

#include <weir/net/connection_access.h>
#include <weir/weir.h>

#include <poll.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "../support/net.h"
#include "script.h"

/// What a script's steps are done to.
namespace weir::test::differential {

/// The bytes of one direction: the same again and again, with a period that is no size of any
/// buffer.
inline constexpr std::size_t kPeriod = 65'521;
inline std::string_view bytes_at(bool left, std::uint64_t offset) {
  const auto twice = [](std::uint64_t seed) {
    const std::string once = pattern(kPeriod, seed);
    return once + once;
  };
  static const std::array<std::string, 2> tables = {twice(1), twice(7)};
  return std::string_view(tables[left ? 1 : 0]).substr(offset % kPeriod);
}
inline std::string bytes_of(bool left, std::uint64_t offset, std::size_t count) {
  std::string bytes;
  while (bytes.size() < count) {
    bytes += bytes_at(left, offset + bytes.size()).substr(0, count - bytes.size());
  }
  return bytes;
}
inline bool are_bytes_of(bool left, std::uint64_t offset, std::string_view bytes) {
  while (!bytes.empty()) {
    const std::string_view right = bytes_at(left, offset).substr(0, bytes.size());
    if (!bytes.starts_with(right)) return false;
    bytes.remove_prefix(right.size());
    offset += right.size();
  }
  return true;
}

inline std::string name_of_error(std::int64_t error) {
  return std::error_code(static_cast<int>(error < 0 ? -error : error), std::generic_category())
      .message();
}

/// A call that may wait; dropped with this.
struct Call {
  std::string what;
  std::size_t bytes = 0;   // of a send, once it has been accepted
  bool takes_all = false;  // a read of any size: the rest of what is there is read behind it
  bool done = false;
  bool well = false;
  std::string outcome = {};
  TaskGroup group = TaskGroup();  // last: uses the others
};

/// One side of the connection: weir's, or a plain socket's.
struct End {
  bool left = false;
  bool weir = false;
  bool held = false;  // its program has it
  TcpConnection connection;
  Peer plain;
  std::uint64_t sent = 0;
  std::uint64_t consumed = 0;
  bool fin = false;      // is sent, or follows what is queued
  bool counts = true;    // what it sent is the same everywhere
  bool clogged = false;  // more was sent than the peer has room for
  bool cut = false;      // its descriptor goes at once
  std::unique_ptr<Call> reading = nullptr;
  std::vector<std::unique_ptr<Call>> sending = {};

  [[nodiscard]] weir::detail::Connection* inner() const noexcept {
    return weir::detail::ConnectionAccess::of(connection);
  }
  [[nodiscard]] int fd() const noexcept {
    if (!weir) return plain.fd();
    return inner() == nullptr ? -1 : inner()->fd();
  }
  [[nodiscard]] std::uint32_t events() const {
    return fd() < 0 ? 0 : TestMachine::current().look_at(fd());
  }
  [[nodiscard]] std::uint64_t arrived() const {
    return fd() < 0 ? 0 : TestMachine::current().arrived(fd());
  }
  [[nodiscard]] Inbox& inbox() const { return inner()->inbox(); }

  /// Takes in what came; empty if it is what was sent.
  std::string take(std::string_view bytes) {
    const bool right = are_bytes_of(!left, consumed, bytes);
    consumed += bytes.size();
    return right ? "" : "WRONG BYTES";
  }
};

// What weir's end awaits. Each is told how it ended.

inline std::string outcome_of(const std::error_code& error) {
  return error ? error.message() : "ok";
}

inline void tell(Call& call, const std::error_code& error, std::string outcome = "ok") {
  call.well = !error;
  call.outcome = error ? error.message() : std::move(outcome);
  call.done = true;
}

inline void tell(Call& call, End& end, const std::error_code& error, const Chunk& chunk) {
  if (!error && chunk.is_end()) return tell(call, error, "end");
  const std::string wrong = end.take(chunk.view());
  // How many bytes a read of any size gives is the kernel's and the pool's choice.
  tell(call, error,
       wrong + (call.takes_all ? "some bytes" : std::to_string(chunk.size()) + " bytes"));
  call.well = call.well && !chunk.is_end();
}

inline Task<> await_read(End& end, Call& call, Step step) {
  const std::size_t count = step.amount;
  switch (step.act) {
    case Act::read: {
      auto [error, chunk] = co_await as_tuple(end.connection.read());
      tell(call, end, error, chunk);
      break;
    }
    case Act::read_most: {
      auto [error, chunk] = co_await as_tuple(end.connection.read(count));
      tell(call, end, error, chunk);
      break;
    }
    case Act::read_exactly: {
      auto [error, chunk] = co_await as_tuple(end.connection.read_exactly(count));
      tell(call, end, error, chunk);
      break;
    }
    case Act::read_until: {
      const std::string delimiter =
          bytes_of(!end.left, end.consumed + count, count % 3 == 0 ? 1 : 2);
      const std::size_t most = count % 5 == 0 ? std::max<std::size_t>(2, count / 2) : count + 9;
      auto [error, chunk] = co_await as_tuple(end.connection.read_until(delimiter, most));
      tell(call, end, error, chunk);
      break;
    }
    case Act::peek: {
      auto [error, chunk] = co_await as_tuple(end.connection.peek(count));
      const bool right = are_bytes_of(!end.left, end.consumed, chunk.view());
      tell(call, error,
           chunk.is_end() ? "end"
                          : (right ? "" : "WRONG BYTES") + std::to_string(chunk.size()) + " seen");
      break;
    }
    default: {
      auto [error, value] = co_await as_tuple(end.connection.read_big<std::uint32_t>());
      std::string bytes;
      append_big(bytes, value);
      tell(call, error, error ? "" : end.take(bytes) + "a number");
      break;
    }
  }
}

inline Task<> await_send(End& end, Call& call, std::string bytes, std::uint32_t form) {
  switch (form % 3) {
    case 0: {
      const auto sent = co_await as_tuple(end.connection.send(std::string_view(bytes)));
      tell(call, sent.error);
      break;
    }
    case 1: {
      const std::string_view all = bytes;
      const std::array<std::string_view, 2> parts = {all.substr(0, all.size() / 2),
                                                     all.substr(all.size() / 2)};
      const std::span<const std::string_view> view(parts);
      const auto sent = co_await as_tuple(end.connection.send(view));
      tell(call, sent.error);
      break;
    }
    default: {
      const auto sent = co_await as_tuple(end.connection.send(std::move(bytes)));
      tell(call, sent.error);
      break;
    }
  }
}

inline Task<> await_flush(End& end, Call& call, bool shuts) {
  if (shuts) {
    const auto done = co_await as_tuple(end.connection.shutdown());
    tell(call, done.error);
  } else {
    const auto done = co_await as_tuple(end.connection.flush());
    tell(call, done.error);
  }
}

}  // namespace weir::test::differential
