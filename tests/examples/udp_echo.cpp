// The echo of datagrams, by Python's sockets.
#ifdef WEIR_EXAMPLES_DIR
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "example.h"

using namespace weir;
using namespace weir::test;

TEST_CASE("datagrams come back whole, of any size, to whoever sent them") {
  const std::string python = client_program("python3");
  if (python.empty()) return;
  for (const std::vector<std::string>& options :
       std::vector<std::vector<std::string>>{{"--engine", best_engine()}, {"--engine", "epoll"}}) {
    Example server("udp_echo", options);
    const Ran ran = run_program(python, {"-c", R"(
import socket, sys
peers = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3)]
for peer in peers:
    peer.settimeout(60)
    peer.connect(("127.0.0.1", int(sys.argv[1])))
for size in [0, 1, 1472, 1473, 65507]:
    for number, peer in enumerate(peers):  # one at a time: the kernel would drop what is too much
        peer.send(bytes([number]) * size)
        assert peer.recv(70000) == bytes([number]) * size, size
for number in range(100): peers[0].send(b"%d" % number)
print([int(peers[0].recv(100)) for _ in range(100)] == list(range(100)))
)",
                                         server.port()});
    CHECK(ran.output == "True\n");
    CHECK(ran.status == 0);
    CHECK(server.end() == 0);
  }
}

TEST_CASE("the echo of datagrams refuses bad options, and a port that is taken") {
  Example first("udp_echo");
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{"--port", first.port()},
                                             {"--port", "0", "--threads", "2"},
                                             {"--port", "0", "--address", "nonsense"},
                                             {"--bogus"}}) {
    const Ran ran = run_program(Example::path_of("udp_echo"), arguments);
    CHECK(ran.status == 1);
    CHECK(ran.output.starts_with("udp_echo: "));
  }
  Example six("udp_echo", {"--address", "::1"});
  CHECK(six.address().to_string().starts_with("[::1]:"));
  CHECK(six.end() == 0);
  CHECK(first.end() == 0);
}
#endif
