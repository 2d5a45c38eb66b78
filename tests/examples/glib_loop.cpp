#include "example.h"

#ifdef WEIR_EXAMPLES_DIR
#include <sstream>
#include <string>
#include <string_view>

using namespace weir;
using namespace weir::test;

namespace {

std::string receive_until(Peer& peer, std::string_view end) {
  std::string got;
  while (got.find(end) == std::string::npos) {
    const std::string more = peer.receive();
    if (more.empty()) break;
    got += more;
  }
  return got;
}

}  // namespace

TEST_CASE("the examples whose libraries are not there are named") {
  std::istringstream names(WEIR_EXAMPLES_LEFT_OUT);
  for (std::string name; names >> name;) {
    MESSAGE("skipped: examples/" << name << " is not built, for want of its library");
  }
}

TEST_CASE("GLib's loop drives a server beside timers and signals of its own") {
  if (::access(Example::path_of("glib_loop").c_str(), X_OK) != 0) return;
  Example example("glib_loop");
  Peer peer = example.connect();
  CHECK(receive_until(peer, "tick\n").ends_with("tick\n"));
  Peer second = example.connect();
  second.send("from the second\n");
  CHECK(receive_until(second, "second\n").find("from the second\n") != std::string::npos);
  peer.send("from the first\n");
  peer.shutdown_send();
  CHECK(peer.receive_all().find("from the first\n") != std::string::npos);
  // One has ended, the other is reset.
  CHECK(example.begin_end());
  CHECK(second.wait_for_end() == ECONNRESET);
  CHECK(example.wait() == 0);
}

TEST_CASE("the example for GLib says what it does not take") {
  if (::access(Example::path_of("glib_loop").c_str(), X_OK) != 0) return;
  CHECK(run_program(Example::path_of("glib_loop"), {"--port", "99999"}).status == 1);
  CHECK(run_program(Example::path_of("glib_loop"), {"stray"}).output.find("usage: glib_loop") !=
        std::string::npos);
}
#endif
