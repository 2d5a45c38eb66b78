#include <weir/net/server/admission.h>

#include <doctest/doctest.h>

#include <string>

#include "../support/allocations.h"

using namespace weir;
using weir::detail::Admission;

TEST_CASE("admission keeps no count of a peer of whom nothing is left") {
  Admission admission(0, 2);
  for (int i = 1; i <= 200; ++i) {
    const auto peer = admission.peer(SocketAddress::parse("10.0.0." + std::to_string(i) + ":1"));
    CHECK(admission.admit(peer));
    CHECK(admission.admit(peer));
    CHECK_FALSE(admission.admit(peer));
    admission.leave(peer);
    CHECK(admission.admit(peer));
    admission.leave(peer);
    admission.leave(peer);
    CHECK(admission.peers() == 0);
  }
  CHECK(admission.count() == 0);
  CHECK(admission.refused() == 200);
}

TEST_CASE("admission counts in all, and whom it refuses it does not count") {
  Admission admission(3, 0);
  CHECK_FALSE(admission.by_peer());
  CHECK(admission.peer(SocketAddress::parse("10.0.0.1:1")) == 0);
  for (int i = 0; i < 3; ++i) CHECK(admission.admit(0));
  for (int i = 0; i < 5; ++i) CHECK_FALSE(admission.admit(0));
  CHECK(admission.count() == 3);
  CHECK(admission.refused() == 5);
  admission.leave(0);
  CHECK(admission.admit(0));

  Admission both(3, 2);
  CHECK(both.admit(1));
  CHECK(both.admit(1));
  CHECK_FALSE(both.admit(1));
  CHECK(both.admit(2));
  CHECK_FALSE(both.admit(3));
  CHECK(both.peers() == 2);
  CHECK(both.count() == 3);
}

TEST_CASE("without memory for a peer's count the peer is refused") {
  Admission admission(0, 1);
  {
    const test::FailingAllocations failing(0);
    CHECK_FALSE(admission.admit(7));
  }
  CHECK(admission.count() == 0);
  CHECK(admission.admit(7));
  CHECK_FALSE(admission.admit(7));
}
