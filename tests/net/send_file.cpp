#include <doctest/doctest.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "../support/allocations.h"
#include "../support/net.h"

using namespace weir;
using namespace weir::test;

namespace {

constexpr int kSmall = 8 << 10;

/// A file without a name, with these bytes in it.
class TemporaryFile {
 public:
  explicit TemporaryFile(std::string_view bytes) {
    std::string path = std::filesystem::temp_directory_path() / "weir-send-file-XXXXXX";
    fd_ = ::mkostemp(path.data(), O_CLOEXEC);
    REQUIRE(fd_ >= 0);
    ::unlink(path.c_str());
    REQUIRE(::write(fd_, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile() { close(); }
  [[nodiscard]] int fd() const noexcept { return fd_; }
  void close() noexcept {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }

 private:
  int fd_ = -1;
};

}  // namespace

TEST_CASE("send_file refuses what is no file, and may never have its bytes") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    const auto [error, none] = co_await as_tuple([](TcpConnection& on, int fd) -> Task<> {
      co_await on.send_file(fd, 0, 10);
    }(conn, ends[0]));
    CHECK(error == std::errc::invalid_seek);
    ::close(ends[0]);
    ::close(ends[1]);
    CHECK(conn.pending_bytes() == 0);
    co_await conn.send("goes on");
    const auto receive = [&peer] { return peer.receive_exactly(7); };
    const std::string got = co_await in_thread(receive);
    CHECK(got == "goes on");
  });
}

TEST_CASE("send_file sends its part in call order with the sends") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    const TemporaryFile file("0123456789");
    co_await conn.send("<");
    co_await conn.send_file(file.fd(), 2, 3);
    co_await conn.send("|");
    co_await conn.send_file(file.fd(), 0, 1);
    co_await conn.send_file(file.fd(), 9, 1);
    co_await conn.send_file(file.fd(), 5, 0);  // nothing
    co_await conn.send(">");
    CHECK(conn.pending_bytes() == 8);
    co_await conn.flush();
    CHECK(peer.receive_exactly(8) == "<234|09>");
    CHECK(conn.pending_bytes() == 0);
  });
}

TEST_CASE("the file may be closed as soon as send_file has returned") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    TemporaryFile file(pattern(50000));
    co_await conn.send_file(file.fd(), 0, 50000);
    file.close();
    const auto receive = [peer = &peer] { return peer->receive_exactly(50000); };
    const std::string got = co_await in_thread(receive);
    CHECK(matching(got, 1, 0) == 50000);
  });
}

TEST_CASE("a large file waits at the high mark and arrives whole, behind and before others") {
  on_each_engine([]() -> Task<> {
    ConnectionOptions options;
    options.water_marks = {.high = 100000, .low = 1000};
    auto [conn, peer] = connect_pair(options, kSmall);
    constexpr std::size_t kSize = 1'000'001;
    const TemporaryFile file(pattern(kSize));
    const auto send = [](TcpConnection& to, int fd) -> Task<> {
      co_await to.send("before");
      co_await to.send_file(fd, 1, kSize - 1);
      co_await to.send("between");
      co_await to.send_file(fd, 0, kSize);
      co_await to.send("after");
      co_await to.shutdown();
    };
    TaskGroup group;
    group.spawn(send(conn, file.fd()));
    const auto receive = [peer = &peer] { return peer->receive_all(); };
    const std::string got = co_await in_thread(receive);
    const std::string bytes = pattern(kSize);
    CHECK((got == "before" + bytes.substr(1) + "between" + bytes + "after"));
    co_await group.join();
  });
}

TEST_CASE("a file shorter than promised breaks the connection with io_error and RST") {
  on_each_engine([]() -> Task<> {
    Peer peer;
    {
      auto pair = connect_pair();
      peer = std::move(pair.peer);
      const TemporaryFile file("short");
      co_await pair.connection.send_file(file.fd(), 0, 1000);
      auto [error, none] = co_await as_tuple(pair.connection.flush());
      CHECK(error == std::errc::io_error);
      auto [again, nothing] = co_await as_tuple(pair.connection.send("x"));
      CHECK(again == std::errc::broken_pipe);
    }
    const auto end = [&peer] { return peer.wait_for_end(); };
    const int error = co_await in_thread(end);
    CHECK(error == ECONNRESET);
  });
}

TEST_CASE("whoever does not read holds no block of the file, and one descriptor") {
  if (plain_only("what has been encrypted is held until it goes")) return;
  on_each_kernel_engine("the model allocates", []() -> Task<> {
    constexpr std::size_t kPeers = kSanitized ? 20 : 50;
    constexpr std::size_t kSize = kSanitized ? 256 << 10 : 2 << 20;
    ConnectionOptions options;
    options.water_marks.high = 64 << 20;
    const TemporaryFile file(pattern(kSize));
    std::vector<Connected> pairs;
    for (std::size_t i = 0; i < kPeers; ++i) pairs.push_back(connect_pair(options, kSmall));
    co_await turns(3);
    const std::int64_t blocks = large_blocks();
    const std::size_t descriptors = count_descriptors();
    for (Connected& pair : pairs) co_await pair.connection.send_file(file.fd(), 0, kSize);
    co_await turns(50);
    // Which the thread keeps for whoever can send: until the kernel takes no more from anybody.
    const auto few_blocks = [blocks] { return large_blocks() - blocks <= 16; };
    const auto end = std::chrono::steady_clock::now() + kPatience;
    while (!few_blocks() && std::chrono::steady_clock::now() < end) co_await turns(1);
    CHECK(few_blocks());
    std::size_t pending = 0;
    for (Connected& pair : pairs) pending += pair.connection.pending_bytes();
    CHECK(pending > 0);
    CHECK(count_descriptors() - descriptors <= kPeers);
    for (Connected& pair : pairs) {
      const auto receive = [peer = &pair.peer] { return peer->receive_exactly(kSize); };
      const std::string got = co_await in_thread(receive);
      REQUIRE(matching(got, 1, 0) == kSize);
    }
  });
}

TEST_CASE("a bad descriptor is refused, and the connection lives on") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    CHECK_THROWS_AS((void)conn.send_file(-1, 0, 1), std::invalid_argument);
    CHECK_THROWS_AS(co_await conn.send_file(1'000'000, 0, 1), std::system_error);
    co_await conn.send("fine");
    co_await conn.flush();
    CHECK(peer.receive_exactly(4) == "fine");
  });
}

TEST_CASE("an offset beyond what files can have is refused, by name") {
  on_each_engine([]() -> Task<> {
    auto [conn, peer] = connect_pair();
    const TemporaryFile file("0123456789");
    const auto refusal = [&conn = conn](int fd, std::uint64_t offset, std::size_t length) {
      try {
        (void)conn.send_file(fd, offset, length);
      } catch (const std::invalid_argument& refused) {
        return std::string(refused.what());
      }
      return std::string();
    };
    constexpr std::uint64_t kLast = std::numeric_limits<std::int64_t>::max();
    for (const std::uint64_t offset : {~std::uint64_t{0}, kLast + 1, kLast}) {
      CHECK(refusal(file.fd(), offset, 1).find(std::to_string(offset)) != std::string::npos);
    }
    CHECK(refusal(file.fd(), 0, kLast + 1).find(std::to_string(kLast + 1)) != std::string::npos);
    CHECK(refusal(file.fd(), kLast - 1, 1).empty());
    co_await conn.send_file(file.fd(), 9, 1);
    co_await conn.flush();
    CHECK(peer.receive_exactly(1) == "9");
  });
}

TEST_CASE("a connection may be dropped or reset while a file is on its way") {
  on_each_engine([]() -> Task<> {
    ConnectionOptions options;
    options.linger = 20ms;
    options.water_marks = {.high = 100000, .low = 1000};
    for (const bool reset : {false, true}) {
      auto pair = connect_pair(options, kSmall);
      const TemporaryFile file(pattern(1 << 20));
      const auto send = [](TcpConnection& to, int fd) -> Task<> {
        (void)co_await as_tuple(to.send_file(fd, 0, 1 << 20));
      };
      TaskGroup group;
      group.spawn(send(pair.connection, file.fd()));
      co_await turns(2);
      if (reset) pair.peer.reset();
      co_await turns(2);
      pair.connection = TcpConnection();
      co_await group.join();
    }
  });
}

TEST_CASE("a waiting send_file that is dropped sends nothing") {
  on_each_engine([]() -> Task<> {
    ConnectionOptions options;
    options.water_marks = {.high = 1000, .low = 0};
    auto [conn, peer] = connect_pair(options, kSmall);
    const TemporaryFile file("dropped");
    const auto send = [](TcpConnection& to) -> Task<> {
      std::string message = pattern(1 << 20);
      co_await to.send(std::move(message));
    };
    const auto send_file = [](TcpConnection& to, int fd) -> Task<> {
      co_await to.send_file(fd, 0, 7);
    };
    TaskGroup group;
    group.spawn(send(conn));
    {
      TaskGroup dropped;
      dropped.spawn(send_file(conn, file.fd()));
      co_await turns(3);
    }
    const auto receive = [peer = &peer] { return peer->receive_all(); };
    std::string got;
    const auto collect = [&]() -> Task<> { got = co_await in_thread(receive); };
    group.spawn(collect());
    co_await conn.shutdown();
    co_await group.join();
    CHECK(matching(got, 1, 0) == 1U << 20);
  });
}
