// tls_restart_server ADDRESS CERTIFICATE KEY: an echo server with TLS. SIGHUP starts a successor
// that takes over, then drains and ends; SIGTERM ends. Prints "ready PID ADDRESS" once it serves.
#include <weir/tls.h>
#include <weir/weir.h>

#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

using namespace weir;
using namespace std::chrono_literals;

namespace {

Task<> echo(TcpConnection conn) {
  while (Chunk data = co_await conn.read()) co_await conn.send(std::move(data));
}

Task<> serve(TcpServer& server, std::vector<std::string> command) {
  for (;;) {
    const int number = co_await signal(SIGHUP, SIGTERM);
    if (number != SIGHUP) break;
    if (bool accepts = co_await server.hand_over(command); accepts) break;
  }
  const DrainReport report = co_await server.drain(1h);
  std::printf("drained %zu %zu\n", report.finished, report.forced);
}

}  // namespace

int main(int argc, char** argv) try {
  ::alarm(390);  // a test that crashed leaves no server behind
  if (argc < 4) return 2;
  sigset_t signals;  // they come when somebody waits for them
  sigemptyset(&signals);
  for (const int number : {SIGHUP, SIGTERM}) sigaddset(&signals, number);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  const TlsContext tls =
      TlsContext::server({.certificate_file = argv[2], .private_key_file = argv[3]});
  ServerOptions options;
  options.address = SocketAddress::parse(argv[1]);
  options.threads = 2;
  options.hand_over_timeout = 1h;  // no successor is given up, however slow the machine is
  options.tls = &tls;
  EventLoop loop;
  TcpServer server(loop, options);
  server.start(echo);
  const std::string address = server.address().to_string();
  std::printf("ready %d %s\n", ::getpid(), address.c_str());
  std::fflush(stdout);
  std::vector<std::string> command(argv, argv + argc);
  command[0] = "/proc/self/exe";
  command[1] = address;
  loop.run_until_complete(serve(server, command));
} catch (const std::exception& error) {
  std::printf("exception: %s\n", error.what());
  return 1;
}
