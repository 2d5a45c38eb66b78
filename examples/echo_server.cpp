// echo_server --port N [--address A] [--threads T] [--engine auto|uring|epoll] [--buffer BYTES]
#include <weir/weir.h>

#include <getopt.h>

#include <cstdio>
#include <map>

using namespace weir;

Task<> echo(TcpConnection conn) {
  while (Chunk data = co_await conn.read())  // empty Chunk = the peer sent FIN
    co_await conn.send(std::move(data));     // lease handed on: no copy in user space
}

int main(int argc, char** argv) try {
  const option names[] = {{"port", 1, nullptr, 'p'},    {"address", 1, nullptr, 'a'},
                          {"threads", 1, nullptr, 't'}, {"engine", 1, nullptr, 'e'},
                          {"buffer", 1, nullptr, 'b'},  {}};
  std::map<int, std::string> given = {{'a', "127.0.0.1"}, {'t', "1"}, {'e', "auto"}};
  for (int name = 0; (name = getopt_long(argc, argv, "", names, nullptr)) != -1;) {
    if (name == '?') return 2;
    given[name] = optarg;
  }
  const std::map<std::string, Engine> engines = {
      {"auto", Engine::automatic}, {"uring", Engine::uring}, {"epoll", Engine::epoll}};
  LoopOptions loop = {.engine = engines.at(given['e'])};
  if (given.contains('b')) loop.buffer_size = std::stoul(given['b']);
  TcpServer server({.address = SocketAddress::parse(given['a'] + ":" + given['p']),
                    .name = "echo",
                    .threads = std::stoul(given['t']),
                    .loop = loop});
  server.listen();
  std::printf("listening on %s\n", server.address().to_string().c_str());
  std::fflush(stdout);
  server.run(echo);
} catch (const std::exception& error) {
  std::fprintf(stderr, "echo_server: %s\n", error.what());
  return 1;
}
