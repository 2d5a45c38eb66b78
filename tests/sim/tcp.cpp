/// What the model of TCP has to have as the kernels do, seen by plain sockets.

#include <weir/weir.h>

#include <doctest/doctest.h>
#include <poll.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <utility>

#include "../support/net.h"

using namespace weir;
using namespace weir::test;

namespace {

std::pair<Peer, Peer> two_peers() {
  const auto [one, other] = tcp_pair();
  return {Peer(one), Peer(other)};
}

std::uint32_t events_of(const Peer& peer) { return TestMachine::current().look_at(peer.fd()); }

/// Until poll(2) tells of one of these.
Task<> until_it_has(const Peer& peer, std::uint32_t events) {
  const auto has = [&peer, events] { return (events_of(peer) & events) != 0; };
  co_await turn_until(has);
}

std::int64_t send_error(const Peer& peer) {
  return TestMachine::current().send(peer.fd(), "x", false);
}

std::int64_t receive_error(const Peer& peer) {
  std::array<char, 8> bytes{};
  return TestMachine::current().receive(peer.fd(), bytes, false);
}

}  // namespace

TEST_CASE("a reset behind the peer's FIN is the end to who reads, and a broken pipe to who sends") {
  on_each_engine([]() -> Task<> {
    auto [here, there] = two_peers();
    there.shutdown_send();
    co_await until_it_has(here, POLLRDHUP);
    there.reset();
    co_await until_it_has(here, POLLHUP);
    CHECK((events_of(here) & POLLERR) != 0);
    CHECK(receive_error(here) == 0);
    CHECK((events_of(here) & POLLERR) != 0);
    CHECK(TestMachine::current().sockets().take_error(here.fd()) == EPIPE);
  });
}

TEST_CASE("poll tells of an error until somebody has been told of it") {
  on_each_engine([]() -> Task<> {
    auto [here, there] = two_peers();
    there.reset();
    co_await until_it_has(here, POLLHUP);
    CHECK((events_of(here) & POLLERR) != 0);
    CHECK(send_error(here) == -ECONNRESET);
    CHECK((events_of(here) & (POLLERR | POLLHUP)) == POLLHUP);
    CHECK(send_error(here) == -EPIPE);
    CHECK(receive_error(here) == 0);
  });
}

TEST_CASE("whose both directions are over has no peer any more, and resets nobody") {
  on_each_engine([]() -> Task<> {
    auto [here, there] = two_peers();
    Sockets& sockets = TestMachine::current().sockets();
    here.shutdown_send();
    co_await until_it_has(there, POLLRDHUP);
    CHECK(sockets.shutdown_send(here.fd()) == 0);
    there.send("unread");
    there.shutdown_send();
    for (const Peer* peer : {&here, &there}) {
      RawAddress address;
      const auto over = [&] { return sockets.peer_address(peer->fd(), address) == -ENOTCONN; };
      co_await turn_until(over);
      CHECK(sockets.shutdown_send(peer->fd()) == -ENOTCONN);
    }
    CHECK(sockets.unread_bytes(here.fd()) == 6);
    here.close();
    co_await turns(5);
    CHECK((events_of(there) & POLLERR) == 0);
    CHECK(receive_error(there) == 0);
  });
}
