/// Random operations on real sockets, by seed: several loops, raw peers that cut, reset and stall,
/// senders on foreign threads, drops, timeouts, drains, tiny rings and buffers. Every byte is
/// checked at the other end, and a stream that ends cleanly ends between two messages.
///
/// WEIR_STORM_SEED=N begins there (and repeats one round with WEIR_STORM_ROUNDS=1);
/// WEIR_STORM_SECONDS=N goes on for that long.

#include <weir/coro/frame_allocator.h>
#include <weir/weir.h>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "../support/net_server.h"
#include "frames.h"

using namespace weir;
using namespace weir::test;
using namespace weir::test::storm;

namespace {

/// What a round found and counted; shared by its threads.
struct Tally {
  std::atomic<std::uint64_t> frames{0};
  std::atomic<std::uint64_t> connections{0};
  std::atomic<std::uint64_t> clean_ends{0};
  std::atomic<std::uint64_t> broken_ends{0};
  std::mutex mutex;
  std::string wrong;

  void fail(const std::string& text) {
    const std::lock_guard lock(mutex);
    if (wrong.empty()) wrong = text;
  }
};

/// One direction of a connection, from its first byte to its end.
class Witness {
 public:
  explicit Witness(Tally& tally) noexcept : tally_(tally) {}
  Witness(const Witness&) = delete;
  Witness& operator=(const Witness&) = delete;
  ~Witness() { tally_.frames += checker_.frames(); }

  void take(std::string_view bytes) {
    if (const std::string& wrong = checker_.feed(bytes); !wrong.empty()) tally_.fail(wrong);
  }
  void end_cleanly() {
    ++tally_.clean_ends;
    if (!checker_.may_end()) tally_.fail("a clean end of the stream in the middle of a message");
  }
  void end_broken() { ++tally_.broken_ends; }

 private:
  Tally& tally_;
  Checker checker_;
};

/// Senders that a thread without a loop uses.
class ForeignThread {
 public:
  explicit ForeignThread(std::uint64_t seed) : dice_(seed), thread_([this] { run(); }) {}
  ForeignThread(const ForeignThread&) = delete;
  ForeignThread& operator=(const ForeignThread&) = delete;
  ~ForeignThread() {
    stop_ = true;
    thread_.join();
  }

  void add(Sender sender, std::uint32_t source) {
    const std::lock_guard lock(mutex_);
    senders_.push_back({std::move(sender), source, 0});
  }

 private:
  struct Entry {
    Sender sender;
    std::uint32_t source;
    std::uint32_t number;
  };

  void run() {
    while (!stop_) {
      std::unique_lock lock(mutex_);
      if (senders_.empty()) {
        lock.unlock();
        std::this_thread::yield();
        continue;
      }
      const std::size_t at = dice_.below(static_cast<std::uint32_t>(senders_.size()));
      Entry& entry = senders_[at];
      if (entry.sender.try_send(frame(entry.source, ++entry.number, dice_.size() / 8))) continue;
      if (dice_.one_in(50)) entry.sender.force_close();
      if (dice_.one_in(20)) entry.sender.close();
      if (!entry.sender.open() || dice_.one_in(30)) {
        entry = std::move(senders_.back());
        senders_.pop_back();
      }
      lock.unlock();
      std::this_thread::yield();
    }
  }

  Dice dice_;
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::vector<Entry> senders_;
  std::thread thread_;
};

struct Round {
  Tally& tally;
  ForeignThread& foreign;
};

std::chrono::microseconds moment(Dice& dice) {
  return std::chrono::microseconds(dice.one_in(4) ? dice.below(3000) : dice.below(100));
}

/// Sends one frame in one of the ways there are. False once the connection has broken.
Task<bool> send_one(TcpConnection& conn, Dice& dice, std::uint32_t source, std::uint32_t number) {
  std::string bytes = frame(source, number, dice.size());
  switch (dice.below(6)) {
    case 0: {
      const auto sent = co_await as_tuple(conn.send(std::string_view(bytes)));
      co_return !sent.error;
    }
    case 1: {
      const auto sent = co_await as_tuple(conn.send(std::move(bytes)));
      co_return !sent.error;
    }
    case 2: {
      const auto* data = reinterpret_cast<const std::byte*>(bytes.data());
      std::vector<std::byte> copy(data, data + bytes.size());
      const auto sent = co_await as_tuple(conn.send(std::move(copy)));
      co_return !sent.error;
    }
    case 3: {
      const auto sent =
          co_await as_tuple(timeout(moment(dice), conn.send(std::string_view(bytes))));
      co_return !sent.error || sent.error == std::errc::timed_out;
    }
    case 4: {
      auto either = co_await as_tuple(when_any(conn.send(std::move(bytes)), sleep(moment(dice))));
      co_return !either.error;
    }
    default: {
      const auto sent = co_await as_tuple(conn.send(std::string_view(bytes)));
      if (sent.error) co_return false;
      const auto flushed = co_await as_tuple(timeout(moment(dice), conn.flush()));
      co_return !flushed.error || flushed.error == std::errc::timed_out;
    }
  }
}

Task<> write_some(TcpConnection& conn, Dice dice, std::uint32_t source) {
  const std::uint32_t count = dice.below(30);
  for (std::uint32_t number = 1; number <= count; ++number) {
    const bool good = co_await send_one(conn, dice, source, number);
    if (!good) co_return;
    if (dice.one_in(5)) co_await sleep(moment(dice));
  }
}

struct Piece {
  Chunk chunk;
  bool over = false;    // the end, or an error
  bool broken = false;  // an error
};

Piece piece_of(Outcome<Chunk> outcome) {
  if (!outcome.error) {
    const bool over = !outcome.value;
    return {std::move(outcome.value), over, false};
  }
  // What is left before an end that came too early is read on.
  const bool goes_on =
      outcome.error == std::errc::timed_out || outcome.error == std::errc::message_size;
  return {{}, !goes_on, !goes_on};
}

Task<Piece> read_one(TcpConnection& conn, Dice& dice) {
  switch (dice.below(6)) {
    case 0: {
      auto outcome = co_await as_tuple(timeout(20ms, conn.read_exactly(1 + dice.below(3000))));
      if (outcome.error == std::errc::connection_aborted) break;  // the rest is there to be read
      co_return piece_of(std::move(outcome));
    }
    case 1: {
      auto outcome = co_await as_tuple(timeout(moment(dice), conn.read()));
      co_return piece_of(std::move(outcome));
    }
    case 2: {
      auto either = co_await as_tuple(when_any(conn.read(), sleep(moment(dice))));
      if (either.error) co_return Piece{{}, true, true};
      if (either.value.index() == 1) co_return Piece{};
      Chunk chunk = std::get<0>(std::move(either.value));
      const bool over = !chunk;
      co_return Piece{std::move(chunk), over, false};
    }
    case 3: {
      auto outcome = co_await as_tuple(timeout(moment(dice), conn.read_until("WE", 2000)));
      if (outcome.error == std::errc::connection_aborted) break;
      co_return piece_of(std::move(outcome));
    }
    default:
      break;
  }
  auto outcome = co_await as_tuple(timeout(20ms, conn.read()));
  co_return piece_of(std::move(outcome));
}

/// Either side of a conversation, server's or client's.
Task<> converse(TcpConnection conn, Dice dice, Round& round) {
  ++round.tally.connections;
  Witness witness(round.tally);
  if (dice.one_in(4)) {
    conn.set_water_marks({.high = 1 + dice.below(10'000), .low = 0});
  }
  if (dice.one_in(8)) conn.on_high_water([](std::size_t) {});
  TaskGroup writers;
  for (std::uint32_t writer = dice.below(4); writer > 0; --writer) {
    writers.spawn(write_some(conn, dice.child(), writer));
  }
  if (dice.one_in(4)) round.foreign.add(conn.sender(), 1000);
  std::uint32_t left = dice.below(400);
  while (left-- > 0) {
    if (dice.one_in(60)) co_await sleep(moment(dice) * 3);
    Piece piece = co_await read_one(conn, dice);
    witness.take(piece.chunk.view());
    if (piece.over) {
      piece.broken ? witness.end_broken() : witness.end_cleanly();
      break;
    }
    if (!piece.chunk) left = left * 3 / 4;  // silence: it does not go on for ever
    if (dice.one_in(100)) writers.spawn(write_some(conn, dice.child(), 10 + left));
  }
  switch (dice.below(8)) {
    case 0:
      conn.force_close();
      co_return;
    case 1:
      throw std::runtime_error("a storm's own");
    case 2:
      conn.close();
      co_return;
    case 3:
      writers.cancel();
      co_return;
    default:
      break;
  }
  // An orderly end: all is sent, and what the other still says is heard.
  [[maybe_unused]] const auto joined = co_await as_tuple(timeout(1s, writers.join()));
  (void)co_await as_tuple(timeout(1s, conn.shutdown()));
  for (;;) {
    auto outcome = co_await as_tuple(timeout(1s, conn.read()));
    if (outcome.error || !outcome.value) co_return;
    witness.take(outcome.value.view());
  }
}

/// A client of weir's own; dropped at some moment, or after a while.
Task<> weir_client(SocketAddress address, Dice dice, Round& round) {
  ConnectorOptions options;
  options.max_attempts = 2;
  options.initial_delay = 1ms;
  Connector connector(address, options);
  auto socket = co_await as_tuple(connector.connect());
  if (socket.error) co_return;
  ConnectionOptions connection;
  connection.linger = std::chrono::milliseconds(dice.one_in(4) ? dice.below(20) : 1000);
  connection.input_high = dice.one_in(3) ? 1 + dice.below(8192) : 512 << 10;
  TcpConnection conn(std::move(socket.value), connection);
  const auto limit = dice.one_in(5) ? std::chrono::milliseconds(dice.below(20)) : 5s;
  (void)co_await as_tuple(timeout(limit, converse(std::move(conn), dice.child(), round)));
}

Task<> weir_clients(SocketAddress address, Dice dice, Round& round, int count) {
  TaskGroup group;
  for (int i = 0; i < count; ++i) {
    auto client = [](SocketAddress to, Dice own, Round& of) -> Task<> {
      try {
        co_await weir_client(to, own, of);
      } catch (const std::runtime_error&) {  // a storm's own
      }
    };
    group.spawn(client(address, dice.child(), round));
    if (dice.one_in(3)) co_await sleep(moment(dice));
  }
  if (dice.one_in(6)) {
    co_await sleep(moment(dice) * 10);
    group.cancel();
  }
  co_await group.join();
}

/// A raw peer that does what peers do.
void raw_client(const SocketAddress& address, Dice dice, Round& round) {
  try {
    ++round.tally.connections;
    Witness witness(round.tally);
    Peer peer = Peer::connect(address, dice.one_in(2) ? 2048 : 0);
    const std::uint32_t kind = dice.below(5);
    if (kind <= 1) peer.send(frame(kLiar, 1, 5));
    std::uint32_t number = 0;
    for (std::uint32_t i = dice.below(20); i > 0; --i) {
      const std::string bytes = frame(7, ++number, dice.below(3000));
      peer.send(bytes);
      if (dice.one_in(3)) witness.take(peer.receive_now());
    }
    if (kind == 0) {  // breaks off
      const std::string bytes = frame(7, ++number, 3000);
      peer.send(std::string_view(bytes).substr(0, dice.below(3000)));
      peer.shutdown_send();
    } else if (kind == 1) {
      peer.reset();
      return;
    } else if (kind == 2) {  // reads nothing for a while, then goes
      std::this_thread::yield();
      return;
    } else {
      peer.shutdown_send();
    }
    int error = 0;
    witness.take(peer.receive_all(&error));
    error == 0 ? witness.end_cleanly() : witness.end_broken();
  } catch (const std::system_error&) {  // the other side has gone
  }
}

ServerOptions random_options(Dice& dice, Engine engine) {
  ServerOptions options;
  options.address = loopback();
  options.threads = 1 + dice.below(3);
  options.reuse_port = dice.one_in(2);
  options.loop.engine = engine;
  if (dice.one_in(2)) options.loop.ring_entries = 4;
  if (dice.one_in(2)) options.loop.buffer_size = 256;
  if (dice.one_in(2)) options.loop.buffer_count = 8;
  options.connection.water_marks.high = 1 + dice.below(dice.one_in(2) ? 2000 : 200'000);
  options.connection.water_marks.low =
      dice.below(static_cast<std::uint32_t>(options.connection.water_marks.high));
  if (dice.one_in(2)) options.connection.input_high = 1 + dice.below(20'000);
  options.connection.linger = std::chrono::milliseconds(dice.one_in(3) ? dice.below(50) : 1000);
  if (dice.one_in(4)) options.idle_timeout = std::chrono::milliseconds(8 + dice.below(50));
  if (dice.one_in(4)) options.max_connections = 5 + dice.below(30);
  if (dice.one_in(4)) options.max_connections_per_peer = 5 + dice.below(30);
  return options;
}

void end_server(ServerThread& server, Dice& dice, Tally& tally) {
  const std::uint32_t way = dice.below(3);
  if (way < 2) {
    const auto limit = way == 0 ? std::chrono::milliseconds(dice.below(30)) : 3000ms;
    std::atomic<bool> drained{false};
    std::size_t left = 0;
    const auto drain = [](TcpServer& of, std::chrono::milliseconds within, std::size_t& count,
                          std::atomic<bool>& done) -> Task<> {
      (void)co_await of.drain(within);
      count = of.connection_count();
      done = true;
    };
    server->loop().spawn(drain(*server, limit, left, drained));
    if (!eventually([&] { return drained.load(); })) tally.fail("a drain does not end");
    if (left != 0) tally.fail(std::to_string(left) + " connections are left after a drain");
  }
  server.stop();
}

void run_round(std::uint64_t seed, Engine engine, Tally& tally) {
  Dice dice(seed);
  ForeignThread foreign(dice.next());
  Round round{tally, foreign};
  std::atomic<std::uint64_t> accepted{0};
  Dice handlers = dice.child();
  const std::uint64_t handler_seed = handlers.next();
  ServerThread server(random_options(dice, engine), [&](TcpConnection conn) {
    return converse(std::move(conn), Dice(handler_seed + 77 * ++accepted), round);
  });
  const SocketAddress address = server->address();
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&round, address, own = dice.child(), engine]() mutable {
      LoopOptions options;
      options.engine = engine;
      options.buffer_count = 64;
      EventLoop loop(options);
      loop.run_until_complete(weir_clients(address, own.child(), round, 12));
    });
  }
  threads.emplace_back([&round, address, own = dice.child()]() mutable {
    for (int i = 0; i < 15; ++i) raw_client(address, own.child(), round);
  });
  const bool early = dice.one_in(4);
  if (early) end_server(server, dice, tally);
  for (std::thread& thread : threads) thread.join();
  if (!early) end_server(server, dice, tally);
}

std::uint64_t number_from(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

}  // namespace

TEST_CASE("a storm loses no byte, breaks no message and leaves nothing behind") {
  const std::uint64_t first = number_from("WEIR_STORM_SEED", 1);
  const std::uint64_t rounds = number_from("WEIR_STORM_ROUNDS", kSanitized ? 10 : 25);
  const auto limit = std::chrono::seconds(number_from("WEIR_STORM_SECONDS", 0));
  const auto begin = std::chrono::steady_clock::now();
  logging::set_logger(nullptr);
  Tally tally;
  std::uint64_t done = 0;
  for_each_engine([&](Engine engine) {
    const auto start = std::chrono::steady_clock::now();
    for (std::uint64_t i = 0; limit.count() > 0 || i < rounds; ++i) {
      if (limit.count() > 0 && std::chrono::steady_clock::now() - start > limit / 2) break;
      const std::uint64_t seed = first + i;
      CAPTURE(seed);
      const std::size_t descriptors = count_descriptors();
      const std::int64_t frames = live_frames();
      run_round(seed, engine, tally);
      ++done;
      INFO("WEIR_STORM_SEED=" << seed << " WEIR_STORM_ROUNDS=1");
      REQUIRE(tally.wrong == "");
      REQUIRE(count_descriptors() == descriptors);
      REQUIRE(live_frames() == frames);
    }
  });
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  std::printf(
      "storm: %llu rounds, %llu connections, %llu frames right, %llu clean and %llu broken "
      "ends, %.1f s\n",
      static_cast<unsigned long long>(done),
      static_cast<unsigned long long>(tally.connections.load()),
      static_cast<unsigned long long>(tally.frames.load()),
      static_cast<unsigned long long>(tally.clean_ends.load()),
      static_cast<unsigned long long>(tally.broken_ends.load()), took.count());
  CHECK(tally.frames > 0);
}
