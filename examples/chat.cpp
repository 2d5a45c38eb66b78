// chat --port N [--address A] [--threads T] [--engine auto|uring|epoll] [--high-water BYTES]
//
// Lines that one sends go to everybody, on whichever loop they are, in the same order for all.
// Nobody waits for anybody: who does not read, so that its queue comes to the high mark, is
// dropped.
#include <weir/weir.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "common/arguments.h"

using namespace weir;
using namespace std::chrono_literals;

namespace {

constexpr std::size_t kLongestLine = 4096;
constexpr std::size_t kBurst = 16 << 10;  // bytes of one member's lines in a millisecond

class Member;

/// Everybody who is here. Its mutex is never held across a `co_await`, and sending under it does
/// not wait: so the order of lines is the same for all.
class Room {
 public:
  std::size_t join(Member& member) {
    const std::lock_guard lock(mutex_);
    members_.push_back(&member);
    return members_.size();
  }
  void leave(Member& member) {
    const std::lock_guard lock(mutex_);
    std::erase(members_, &member);
  }
  void broadcast(const std::string& line);

 private:
  std::mutex mutex_;
  std::vector<Member*> members_;
};

/// One connection, for as long as it is in the room.
class Member {
 public:
  Member(Room& room, TcpConnection& conn) : room_(room), sender_(conn.sender()), id_(conn.id()) {
    const std::size_t count = room_.join(*this);
    (void)sender_.try_send("* you are " + std::to_string(id_) + ", " + std::to_string(count) +
                           " here\n");
  }
  Member(const Member&) = delete;
  Member& operator=(const Member&) = delete;
  ~Member() { room_.leave(*this); }

  /// From any loop, with the room's mutex held: so this has not gone.
  void give(const std::string& line) {
    if (!sender_.try_send(line)) sender_.force_close();  // it would not read a farewell either
  }

  [[nodiscard]] std::uint64_t id() const { return id_; }

 private:
  Room& room_;
  Sender sender_;
  std::uint64_t id_;
};

void Room::broadcast(const std::string& line) {
  const std::lock_guard lock(mutex_);
  for (Member* member : members_) member->give(line);
}

/// The line as others may see it: no control characters, which terminals would obey.
std::string printable(std::string_view line) {
  while (line.ends_with('\n') || line.ends_with('\r')) line.remove_suffix(1);
  std::string text(line);
  std::ranges::replace_if(
      text, [](unsigned char c) { return (c < ' ' && c != '\t') || c == 0x7f; }, '?');
  return text;
}

/// Until the peer ends it, or breaks the rules.
Task<> pass_lines_on(TcpConnection& conn, Room& room, std::uint64_t id) {
  const std::string head = std::to_string(id) + ": ";
  for (std::size_t passed = 0;;) {
    auto [error, line] = co_await as_tuple(conn.read_until("\n", kLongestLine));
    if (error == std::errc::message_size) {
      (void)co_await as_tuple(conn.send("* this line is too long\n"));
      co_return;
    }
    if (error || !line) co_return;
    room.broadcast(head + printable(line.view()) + '\n');
    passed += line.size();
    if (passed >= kBurst) {
      passed = 0;
      co_await sleep(1ms);  // a burst is spread, so that it alone drops nobody
    }
  }
}

Task<> chat(TcpConnection conn, Room& room) {
  Member member(room, conn);
  (void)co_await when_any(conn.draining(), pass_lines_on(conn, room, member.id()));
}

}  // namespace

int main(int argc, char** argv) try {
  const Arguments arguments(argc, argv, {{"high-water", "262144"}});
  ServerOptions options = arguments.server_options("chat");
  options.connection.water_marks.high = arguments.number("high-water");
  options.connection.water_marks.low = options.connection.water_marks.high / 4;
  Room room;
  TcpServer server(options);
  serve(server, [&room](TcpConnection conn) { return chat(std::move(conn), room); });
} catch (const std::exception& error) {
  std::fprintf(stderr, "chat: %s\n", error.what());
  return 1;
}
