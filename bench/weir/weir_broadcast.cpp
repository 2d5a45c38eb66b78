// What comes in on any connection goes out on all of them.
#include <weir/weir.h>

#include <cstdio>
#include <map>
#include <string_view>

using namespace weir;

constexpr WaterMarks kMarks;

// A connection as long as its handler lives.
class Member {
 public:
  Member(std::map<std::uint64_t, TcpConnection*>& all, TcpConnection& conn)
      : all_(all), id_(conn.id()) {
    all_.emplace(id_, &conn);
  }
  Member(const Member&) = delete;
  Member& operator=(const Member&) = delete;
  ~Member() { all_.erase(id_); }

 private:
  std::map<std::uint64_t, TcpConnection*>& all_;
  std::uint64_t id_;
};

// --port N [--engine uring|epoll]
int main(int argc, char** argv) try {
  std::string port = "0";
  LoopOptions loop;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (std::string_view(argv[i]) == "--port") port = argv[i + 1];
    if (std::string_view(argv[i]) == "--engine") {
      loop.engine = std::string_view(argv[i + 1]) == "epoll" ? Engine::epoll : Engine::uring;
    }
  }
  std::map<std::uint64_t, TcpConnection*> members;
  const auto serve = [&members](TcpConnection conn) -> Task<> {
    const Member self(members, conn);
    while (const Chunk data = co_await conn.read()) {
      for (const auto& [id, member] : members) {
        // Who is slow misses a message; nobody waits, as a send below the high mark does not.
        if (member->pending_bytes() >= kMarks.high) continue;
        // An error is for the member's own read.
        (void)co_await as_tuple(member->send(data.slice(0)));
      }
    }
  };
  TcpServer server({.address = SocketAddress::parse("127.0.0.1:" + port), .loop = loop});
  server.listen();
  std::printf("listening on %s\n", server.address().to_string().c_str());
  std::fflush(stdout);
  server.run(serve);
} catch (const std::exception& error) {
  std::fprintf(stderr, "weir_broadcast: %s\n", error.what());
  return 1;
}
