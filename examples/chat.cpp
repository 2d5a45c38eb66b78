// chat --port N [--address A] [--threads T] [--engine auto|uring|epoll] [--high-water BYTES]
//
// Lines that one sends go to everybody, on whichever loop they are, in the same order for all.
// Nobody waits for anybody: who does not read, so that its queue comes to the high mark, is
// dropped.
#include <weir/weir.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <exception>
#include <mutex>
#include <new>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/arguments.h"

using namespace weir;
using namespace std::chrono_literals;

namespace {

constexpr std::size_t kLongestLine = 4096;
constexpr std::size_t kBurst = 16 << 10;  // bytes that members are given before a talker rests

class Member;

/// Everybody who is here. Its mutex is never held across a `co_await`, and sending under it does
/// not wait: so the order of lines is the same for all.
class Room {
 public:
  void join(Member& member) {
    const std::lock_guard lock(mutex_);
    members_.push_back(&member);
  }
  std::size_t size() {
    const std::lock_guard lock(mutex_);
    return members_.size();
  }
  void leave(Member& member) {
    const std::lock_guard lock(mutex_);
    std::erase(members_, &member);
  }
  /// Gives how many bytes everybody has been told by now.
  std::size_t broadcast(const SharedBytes& line);
  std::size_t told() {
    const std::lock_guard lock(mutex_);
    return told_;
  }

 private:
  std::mutex mutex_;
  std::vector<Member*> members_;
  std::size_t told_ = 0;
};

/// One connection, for as long as it is in the room.
class Member {
 public:
  Member(Room& room, TcpConnection& conn) : Member(room, conn.sender(), conn.id()) {
    // Here already: should memory fail now, the destructor leaves the room.
    (void)sender_.try_send("* you are " + std::to_string(id_) + ", " + std::to_string(room.size()) +
                           " here\n");
  }
  Member(const Member&) = delete;
  Member& operator=(const Member&) = delete;
  ~Member() { room_.leave(*this); }

  /// From any loop, with the room's mutex held: so this has not gone.
  void give(const SharedBytes& line) {
    bool given = false;
    try {
      given = sender_.try_send(line);
    } catch (const std::bad_alloc&) {  // the others get it
    }
    if (!given) sender_.force_close();  // it would not read a farewell either
  }

  [[nodiscard]] std::uint64_t id() const { return id_; }

 private:
  Member(Room& room, Sender sender, std::uint64_t id)
      : room_(room), sender_(std::move(sender)), id_(id) {
    room_.join(*this);
  }

  Room& room_;
  Sender sender_;
  std::uint64_t id_;
};

std::size_t Room::broadcast(const SharedBytes& line) {
  const std::lock_guard lock(mutex_);
  for (Member* member : members_) member->give(line);
  return told_ += line.size();
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
Task<> pass_lines_on(ByteStream auto& conn, Room& room, std::uint64_t id) {
  const std::string head = std::to_string(id) + ": ";
  std::size_t rested = room.told();
  for (;;) {
    auto [error, line] = co_await as_tuple(conn.read_until("\n", kLongestLine));
    if (error == std::errc::message_size) {
      (void)co_await as_tuple(conn.send("* this line is too long\n"));
      co_return;
    }
    if (error || !line) co_return;
    // A burst is spread, whoever it comes from, so that it alone drops nobody.
    const SharedBytes text(head + printable(line.view()) + '\n');  // once, however many there are
    if (room.broadcast(text) - rested >= kBurst) {
      co_await sleep(1ms);
      rested = room.told();
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
