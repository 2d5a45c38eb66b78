// restart_server MODE ADDRESS [THREADS [reuse_port]]: an echo server that is restarted and drained.
// MODE "serve": SIGHUP starts a successor that takes over the listeners, then drains and ends;
// SIGTERM drains and ends. MODE "run": `TcpServer::run`. Both print "ready PID ADDRESS" once they
// serve, "drained FINISHED FORCED" or "end" when they end, and "kept" if a listener was inherited.
// MODE "three": two servers on the address, and a third after the end of the first; prints theirs.
#include <weir/weir.h>

#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <optional>
#include <string>
#include <vector>

using namespace weir;
using namespace std::chrono_literals;

namespace {

Task<> echo(TcpConnection conn) {
  while (Chunk data = co_await conn.read()) co_await conn.send(std::move(data));
}

void say(const std::string& line) {
  const std::string text = line + "\n";
  [[maybe_unused]] const auto written = ::write(STDOUT_FILENO, text.data(), text.size());
}

void say_ready(const TcpServer& server) {
  say("ready " + std::to_string(::getpid()) + " " + server.address().to_string());
}

Task<> serve(TcpServer& server, std::vector<std::string> command) {
  for (;;) {
    const int number = co_await signal(SIGHUP, SIGTERM);
    if (number != SIGHUP) break;
    if (bool accepts = co_await server.hand_over(command); accepts) break;
    say("goes on");
  }
  const DrainReport report = co_await server.drain(1h);
  say("drained " + std::to_string(report.finished) + " " + std::to_string(report.forced));
}

Task<> serve_three(ServerOptions options) {
  std::optional<TcpServer> first(std::in_place, EventLoop::current(), options);
  first->start(echo);
  say("first " + first->address().to_string());
  TcpServer second(EventLoop::current(), options);
  second.start(echo);
  say("second " + second.address().to_string());
  first.reset();
  for (int turn = 0; turn < 10; ++turn) co_await yield();  // its number is free again
  Acceptor other(options.address);
  TcpServer third(EventLoop::current(), options);
  third.start(echo);
  say("third " + third.address().to_string());
  if (third.address() == other.address()) say("which is another's");
}

}  // namespace

int main(int argc, char** argv) try {
  ::alarm(390);  // a test that crashed leaves no server behind
  if (argc < 3) return 2;
  // They come when somebody waits for them.
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : {SIGHUP, SIGTERM}) sigaddset(&signals, number);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  ServerOptions options;
  options.address = SocketAddress::parse(argv[2]);
  options.drain_timeout = 1h;      // nobody is cut off, however slow the machine is,
  options.hand_over_timeout = 1h;  // and no successor is given up
  if (argc > 3) options.threads = static_cast<std::size_t>(std::atoi(argv[3]));
  options.reuse_port = argc > 4;
  options.store_listeners = std::getenv("NOTIFY_SOCKET") != nullptr;
  if (std::getenv("LISTEN_FDS") != nullptr) say("kept");
  if (std::string(argv[1]) == "run") {
    TcpServer server(options);
    server.listen();
    say_ready(server);
    server.run(echo);
    say("end");
    return 0;
  }
  EventLoop loop;
  if (std::string(argv[1]) == "three") {
    loop.run_until_complete(serve_three(options));
    return 0;
  }
  TcpServer server(loop, options);
  server.start(echo);
  say_ready(server);
  std::vector<std::string> command(argv, argv + argc);
  command[0] = "/proc/self/exe";
  command[2] = server.address().to_string();
  loop.run_until_complete(serve(server, command));
} catch (const std::exception& error) {
  say(std::string("exception: ") + error.what());
  return 1;
}
