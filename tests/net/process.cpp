// What a server does to and with its process: descriptors that run out, signals.
#include <doctest/doctest.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <string>
#include <system_error>
#include <vector>

#include "../support/child.h"
#include "../support/net_server.h"

using namespace weir;
using namespace weir::test;

namespace {

/// The program of tests/programs/obedient_server.cpp.
struct Server {
  explicit Server(Engine engine, int threads = 1, std::vector<std::string> more = {})
      : child(WEIR_TEST_PROGRAMS_DIR "/obedient_server",
              [&] {
                more.insert(more.begin(), std::to_string(threads));
                more.insert(more.begin(), engine == Engine::epoll ? "epoll" : "uring");
                return more;
              }()),
        address(SocketAddress::parse(child.read_line())) {}

  Child child;
  SocketAddress address;
};

/// One line there and one back; empty if the connection ends first.
std::string ask(Peer& peer, const std::string& line) {
  std::string reply;
  try {
    peer.send(line + '\n');
    while (reply.find('\n') == std::string::npos) {
      const std::string more = peer.receive();
      if (more.empty()) return {};
      reply += more;
    }
  } catch (const std::system_error& error) {
    CHECK((error.code() == std::errc::connection_reset || error.code() == std::errc::broken_pipe));
    return {};
  }
  reply.pop_back();
  return reply;
}

long ask_number(Peer& peer, const std::string& line) { return std::stol(ask(peer, line)); }

/// Connects `count` clients and keeps those that are served; gives how many were closed.
long crowd(const SocketAddress& address, int count, std::vector<Peer>& served) {
  long closed = 0;
  for (int i = 0; i < count; ++i) {
    Peer peer = Peer::connect(address);
    if (ask(peer, "hello") == "hello") {
      served.push_back(std::move(peer));
    } else {
      ++closed;
    }
  }
  return closed;
}

/// UBSan checks an object's type by way of a pipe, and takes its lack for a broken object.
bool skipped_for_the_sanitizer() {
  const bool skipped = kSanitized && !kThreadSanitizer;
  if (skipped) MESSAGE("skipped: the sanitizer needs descriptors of its own");
  return skipped;
}

bool refuses(const SocketAddress& address) {
  try {
    Peer::connect(address);
    return false;
  } catch (const std::system_error& error) {
    return error.code() == std::errc::connection_refused;
  }
}

/// Microseconds of CPU that the server uses in two seconds.
long cpu_of_two_seconds(Peer& control) {
  const long before = ask_number(control, "cpu");
  ::poll(nullptr, 0, 2000);
  return ask_number(control, "cpu") - before;
}

/// Whether it comes to rest: what spins never does, while a machine that stood still may have had
/// something left for once, or counts what it took from us as ours.
bool rests(Peer& control) {
  for (int i = 0; i < 10; ++i) {
    if (cpu_of_two_seconds(control) < 40'000) return true;
  }
  return false;
}

}  // namespace

TEST_CASE("a server that is out of descriptors sheds, rests, serves on and recovers") {
  if (skipped_for_the_sanitizer()) return;
  for_each_engine([](Engine engine) {
    Server server(engine);
    Peer control = Peer::connect(server.address);
    REQUIRE(ask(control, "room 20") == "done");
    std::vector<Peer> served;

    // Beyond the limit clients are closed at once, and counted.
    long closed = crowd(server.address, 60, served);
    CHECK(served.size() == 20);
    CHECK(closed == 40);
    CHECK(ask_number(control, "shed") == closed);
    CHECK(ask_number(control, "episodes") == 1);

    // With nobody in the backlog it costs nothing; a spinning accept would take all there is.
    CHECK(rests(control));

    // Those who are served notice nothing.
    for (Peer& peer : served) CHECK(ask(peer, "still here") == "still here");

    // Descriptors come back: so many clients are served again, and not one more.
    for (int i = 0; i < 5; ++i) served.pop_back();
    const long left = static_cast<long>(served.size()) + 1;
    CHECK(eventually([&] { return ask_number(control, "count") == left; }));
    closed += crowd(server.address, 5, served);
    CHECK(served.size() == static_cast<std::size_t>(left) - 1 + 5);
    const long more = crowd(server.address, 7, served);
    CHECK(more == 7);
    closed += more;
    CHECK(ask_number(control, "shed") == closed);
    CHECK(ask_number(control, "episodes") == 2);

    // The limit is raised: it notices by itself.
    REQUIRE(ask(control, "limit 1000") == "done");
    std::vector<Peer> after;
    while (after.empty() && closed < 1000) closed += crowd(server.address, 1, after);
    closed += crowd(server.address, 100, after);
    CHECK(after.size() >= 100);
    CHECK(ask_number(control, "shed") == closed);
    for (Peer& peer : served) CHECK(ask(peer, "still here") == "still here");

    served.clear();
    after.clear();
    control.close();
    server.child.signal(SIGTERM);
    CHECK(server.child.wait() == 0);
  });
}

TEST_CASE("a flood of clients at the limit is shed without a spin, by however many loops") {
  if (skipped_for_the_sanitizer()) return;
  for_each_engine([](Engine engine) {
    for (const int threads : {1, 2, 4}) {
      CAPTURE(threads);
      Server server(engine, threads);
      Peer control = Peer::connect(server.address);
      REQUIRE(ask(control, "room 0") == "done");
      // All at once, so that they stand in the backlogs together.
      std::vector<Peer> clients;
      for (int i = 0; i < 500; ++i) clients.push_back(Peer::connect(server.address));
      for (Peer& peer : clients) (void)peer.wait_for_end();
      // Who is closed may know it before it is counted, by another loop than the one asked.
      CHECK(eventually([&] { return ask_number(control, "shed") == 500; }));
      CHECK(ask_number(control, "episodes") <= threads);
      CHECK(rests(control));
      REQUIRE(ask(control, "limit 1000") == "done");
      CHECK(eventually([&] {
        Peer peer = Peer::connect(server.address);
        return ask(peer, "hello") == "hello";
      }));
    }
  });
}

TEST_CASE("a server that is started without standard streams leaves their numbers alone") {
  for_each_engine([](Engine engine) {
    for (const int threads : {1, 2}) {
      Server server(engine, threads, {"closed"});
      std::vector<Peer> clients;
      CHECK(crowd(server.address, 5, clients) == 0);
      CHECK(ask(clients.back(), "standard") == "0");
      clients.clear();
      server.child.signal(SIGTERM);
      CHECK(server.child.wait() == 0);
    }
  });
}

TEST_CASE("SIGTERM drains: who is connected is served to the end, others are refused") {
  for_each_engine([](Engine engine) {
    Server server(engine);
    Peer peer = Peer::connect(server.address);
    CHECK(ask(peer, "hello") == "hello");
    server.child.signal(SIGTERM);
    CHECK(eventually([&] { return refuses(server.address); }));
    CHECK(ask(peer, "and still") == "and still");
    peer.close();
    CHECK(server.child.wait() == 0);
    CHECK(server.child.read_all().empty());
  });
}

TEST_CASE("a second signal ends a server at once") {
  for_each_engine([](Engine engine) {
    Server server(engine);
    Peer peer = Peer::connect(server.address);
    CHECK(ask(peer, "hello") == "hello");
    server.child.signal(SIGINT);
    CHECK(eventually([&] { return refuses(server.address); }));
    server.child.signal(SIGTERM);
    CHECK(server.child.wait() == 0);  // while the client is still connected
    (void)peer.wait_for_end();
  });
}

TEST_CASE("SIGTERM drains a server that has no descriptor left") {
  if (skipped_for_the_sanitizer()) return;
  for_each_engine([](Engine engine) {
    Server server(engine);
    Peer peer = Peer::connect(server.address);
    REQUIRE(ask(peer, "room 0") == "done");
    Peer beyond = Peer::connect(server.address);
    (void)beyond.wait_for_end();
    CHECK(ask_number(peer, "shed") == 1);
    server.child.signal(SIGTERM);
    CHECK(eventually([&] { return refuses(server.address); }));
    CHECK(ask(peer, "and still") == "and still");
    peer.close();
    CHECK(server.child.wait() == 0);
  });
}

TEST_CASE("one SIGTERM ends all servers of a process, on whichever threads they run") {
  for_each_engine([](Engine engine) {
    ServerThread first(server_options(engine), echo);
    ServerThread second(server_options(engine, 2), echo);
    Peer one = first.connect();
    Peer other = second.connect();
    CHECK(echoes(one));
    CHECK(echoes(other));
    ::kill(::getpid(), SIGTERM);
    CHECK(eventually([&] { return refuses(first->address()) && refuses(second->address()); }));
    one.close();
    other.close();
    first.join();
    second.join();
  });
}

TEST_CASE("a server that is idle uses no CPU") {
  for_each_engine([](Engine engine) {
    Server server(engine);
    Peer control = Peer::connect(server.address);
    std::vector<Peer> idle;
    CHECK(crowd(server.address, 100, idle) == 0);
    CHECK(rests(control));
  });
}
