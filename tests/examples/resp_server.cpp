// The key-value server: driven by Redis's own clients, and by peers that break the protocol.
#ifdef WEIR_EXAMPLES_DIR
#include <doctest/doctest.h>

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "../../examples/resp/store.h"
#include "example.h"

using namespace weir;
using namespace weir::test;

namespace {

/// redis-cli's answer to one command, without the line feed at its end.
std::string ask(const std::string& cli, const Example& server, std::vector<std::string> command) {
  command.insert(command.begin(), {"-p", server.port()});
  std::string output = run_program(cli, command).output;
  while (output.ends_with('\n')) output.pop_back();
  return output;
}

/// A time to live that was set just now: a process or two may take some seconds to begin.
bool is_about(const std::string& seconds, long set) {
  const long left = std::stol(seconds);
  return left <= set && left > set - 1000;
}

/// What comes back for these bytes, up to the end of the stream.
std::string answer_to(const Example& server, std::string_view bytes) {
  Peer peer = server.connect();
  peer.send(bytes);
  peer.shutdown_send();
  int error = 0;
  return peer.receive_all(&error);
}

std::string bulk(std::string_view text) {
  return '$' + std::to_string(text.size()) + "\r\n" + std::string(text) + "\r\n";
}

}  // namespace

TEST_CASE("the key-value server reads its options, refuses bad ones, and ends on SIGTERM") {
  check_command_line("resp_server", {});
}

TEST_CASE("redis-cli sets, counts, lists and expires keys") {
  const std::string cli = client_program("redis-cli");
  if (cli.empty()) return;
  Example server("resp_server");
  CHECK(ask(cli, server, {"PING"}) == "PONG");
  CHECK(ask(cli, server, {"ECHO", "two words"}) == "two words");
  CHECK(ask(cli, server, {"SET", "k", "v"}) == "OK");
  CHECK(ask(cli, server, {"GET", "k"}) == "v");
  CHECK(ask(cli, server, {"SET", "k", "w", "NX"}).empty());
  CHECK(ask(cli, server, {"GET", "k"}) == "v");
  CHECK(ask(cli, server, {"TTL", "k"}) == "-1");
  CHECK(ask(cli, server, {"EXPIRE", "k", "100000"}) == "1");
  CHECK(is_about(ask(cli, server, {"TTL", "k"}), 100'000));
  CHECK(ask(cli, server, {"SET", "k", "v", "EX", "200000"}) == "OK");
  CHECK(is_about(ask(cli, server, {"TTL", "k"}), 200'000));
  CHECK(ask(cli, server, {"SET", "k", "v", "px", "300000", "nx"}).empty());
  CHECK(ask(cli, server, {"EXPIRE", "k", "-1"}) == "1");
  CHECK(ask(cli, server, {"TTL", "k"}) == "-2");
  CHECK(ask(cli, server, {"EXISTS", "k"}) == "0");
  CHECK(ask(cli, server, {"INCR", "n"}) == "1");
  CHECK(ask(cli, server, {"INCR", "n"}) == "2");
  CHECK(ask(cli, server, {"MSET", "a", "1", "b", "2"}) == "OK");
  CHECK(ask(cli, server, {"MGET", "a", "none", "b"}) == "1\n\n2");
  CHECK(ask(cli, server, {"EXISTS", "a", "b", "none", "a"}) == "3");
  CHECK(ask(cli, server, {"DEL", "a", "b", "none"}) == "2");
  CHECK(ask(cli, server, {"LPUSH", "l", "x", "y", "z"}) == "3");
  CHECK(ask(cli, server, {"LRANGE", "l", "0", "-1"}) == "z\ny\nx");
  CHECK(ask(cli, server, {"LRANGE", "l", "-2", "1"}) == "y");
  CHECK(ask(cli, server, {"LRANGE", "l", "5", "9"}).empty());
  CHECK(ask(cli, server, {"RPOP", "l"}) == "x");
  CHECK(ask(cli, server, {"CONFIG", "GET", "save"}) == "save");
  CHECK(ask(cli, server, {"COMMAND", "COUNT"}) == "17");
  CHECK(ask(cli, server, {"INFO"}).find("db0:keys=2") != std::string::npos);
  CHECK(server.end() == 0);
}

TEST_CASE("a misused command is an error, and the connection goes on") {
  const std::string cli = client_program("redis-cli");
  if (cli.empty()) return;
  Example server("resp_server");
  CHECK(ask(cli, server, {"NONSENSE"}).starts_with("ERR unknown command"));
  CHECK(ask(cli, server, {"GET"}).starts_with("ERR wrong number"));
  CHECK(ask(cli, server, {"MSET", "a", "1", "b"}).starts_with("ERR wrong number"));
  CHECK(ask(cli, server, {"SET", "k", "v", "EX"}).starts_with("ERR syntax"));
  CHECK(ask(cli, server, {"SET", "k", "v", "EX", "0"}).starts_with("ERR invalid expire"));
  CHECK(ask(cli, server, {"SET", "k", "v", "EX", "9223372036854775807"})
            .starts_with("ERR invalid expire"));
  CHECK(ask(cli, server, {"SET", "k", "text"}) == "OK");
  CHECK(ask(cli, server, {"INCR", "k"}).starts_with("ERR value is not an integer"));
  CHECK(ask(cli, server, {"LPUSH", "k", "x"}).starts_with("WRONGTYPE"));
  CHECK(ask(cli, server, {"LPUSH", "l", "x"}) == "1");
  CHECK(ask(cli, server, {"GET", "l"}).starts_with("WRONGTYPE"));
  CHECK(ask(cli, server, {"SET", "n", "9223372036854775807"}) == "OK");
  CHECK(ask(cli, server, {"INCR", "n"}).find("overflow") != std::string::npos);
  CHECK(ask(cli, server, {"PING"}) == "PONG");
}

TEST_CASE("redis-benchmark finishes without an error, pipelined or not, on one loop and on two") {
  const std::string benchmark = client_program("redis-benchmark");
  if (benchmark.empty()) return;
  for (const char* threads : {"1", "2"}) {
    Example server("resp_server", {"--threads", threads});
    for (const char* depth : {"1", "16"}) {
      const Ran ran =
          run_program(benchmark, {"-p", server.port(), "-n", "4000", "-P", depth, "--csv", "-t",
                                  "ping,set,get,incr,lpush,rpop,lrange_100,mset"});
      CAPTURE(ran.output);
      CHECK(ran.status == 0);
      CHECK(ran.output.find("rror") == std::string::npos);
      CHECK(ran.output.find("\"LRANGE_100 (first 100 elements)\"") != std::string::npos);
      CHECK(ran.output.find("\"MSET (10 keys)\"") != std::string::npos);
    }
    CHECK(server.end() == 0);
  }
}

TEST_CASE("netcat's inline commands are answered in order, and QUIT ends the connection") {
  const std::string nc = client_program("nc");
  if (nc.empty()) return;
  Example server("resp_server");
  const Ran ran = run_program(nc, {"-w", "30", "127.0.0.1", server.port()},
                              "PING\r\n\r\nset  key value\nGET key\r\nQUIT\r\nPING\r\n");
  CHECK(ran.output == "+PONG\r\n+OK\r\n$5\r\nvalue\r\n+OK\r\n");
}

TEST_CASE("a pipeline that comes byte by byte is answered like one that comes whole") {
  Example server("resp_server");
  const std::string pipeline =
      "*3\r\n$3\r\nSET\r\n$3\r\na\r\n\r\n$4\r\n\r\n*1\r\nPING\r\n*0\r\n*2\r\n$3\r\nGET\r\n$"
      "3\r\na\r\n"
      "\r\n*-1\r\n*2\r\n$4\r\nECHO\r\n$0\r\n\r\n";
  const std::string expected = "+OK\r\n+PONG\r\n" + bulk("\r\n*1") + bulk("");
  CHECK(answer_to(server, pipeline) == expected);
  Peer peer = server.connect();
  for (const char byte : pipeline) peer.send(std::string_view(&byte, 1));
  CHECK(peer.receive_exactly(expected.size()) == expected);
}

TEST_CASE("a value of megabytes goes in and comes out whole, past a reader that starts late") {
  Example server("resp_server");
  const std::string value = pattern(4 << 20);
  Peer writer = server.connect();
  writer.send("*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n" + bulk(value));
  CHECK(writer.receive_exactly(5) == "+OK\r\n");
  Peer reader = server.connect(4096);
  std::string commands;
  for (int i = 0; i < 8; ++i) commands += "GET big\r\n";
  reader.send(commands);
  Peer other = server.connect();
  other.send("PING\r\n");
  CHECK(other.receive_exactly(7) == "+PONG\r\n");  // nobody waits for the slow one
  const std::string expected = bulk(value);
  for (int i = 0; i < 8; ++i) {
    const bool same = reader.receive_exactly(expected.size()) == expected;
    CHECK(same);
  }
}

TEST_CASE("a stream that is no RESP gets a protocol error and the end of the connection") {
  Example server("resp_server");
  for (const std::string& bytes :
       {std::string("*x\r\n"), std::string("*99999999999999999999\r\n"), std::string("*70000\r\n"),
        std::string("*1\r\nx\r\n"), std::string("*1\r\n$-1\r\n"), std::string("*1\r\n$x\r\n"),
        std::string("*1\r\n$99999999999\r\n"), std::string("*1\r\n$4\r\nPINGxx"),
        std::string("*2\r\n$4\r\nECHO\r\n$16777200\r\n"), std::string(70000, 'x')}) {
    CAPTURE(bytes.substr(0, 30));
    Peer peer = server.connect();
    peer.send(bytes);
    const std::string answer = peer.receive_all();  // the server ends it
    CHECK(answer.starts_with("-ERR Protocol error: "));
    CHECK(answer.ends_with("\r\n"));
  }
  CHECK(answer_to(server, "*2\r\n$4\r\nECHO\r\n$100\r\nshort").empty());
  CHECK(answer_to(server, std::string(1, '\0') + "\xff\xfe\r\n").starts_with("-ERR unknown"));
  CHECK(answer_to(server, "\x1b[31m\r\n").find('\x1b') == std::string::npos);
  CHECK(answer_to(server, "PING\r\n") == "+PONG\r\n");
  CHECK(server.end() == 0);
}

TEST_CASE("the answers before a protocol error still go out") {
  Example server("resp_server");
  Peer peer = server.connect();
  peer.send("PING\r\nPING\r\n*x\r\nPING\r\n");
  const std::string answer = peer.receive_all();
  CHECK(answer.starts_with("+PONG\r\n+PONG\r\n-ERR Protocol error"));
  CHECK(answer.find("+PONG", 14) == std::string::npos);
}

TEST_CASE("a command that does not come to its end in time ends the connection") {
  Example server("resp_server", {"--command-timeout", "100"});
  Peer slow = server.connect();
  slow.send("PING\r\n*2\r\n$4\r\nECHO\r\n");
  CHECK(slow.receive_all() == "+PONG\r\n");
  Peer idle = server.connect();  // no command has begun: it may take its time
  idle.send("PING\r\n");
  CHECK(idle.receive_exactly(7) == "+PONG\r\n");
  Peer late = server.connect();
  late.send("*1\r\n");
  CHECK(late.wait_for_end() == 0);
  idle.send("PING\r\n");
  CHECK(idle.receive_exactly(7) == "+PONG\r\n");
}

TEST_CASE("a short command for a long answer pins a piece of it while its client does not read") {
  Example server("resp_server");
  const std::string value = pattern(1 << 20);
  CHECK(answer_to(server, "*3\r\n$3\r\nSET\r\n$1\r\nb\r\n" + bulk(value)) == "+OK\r\n");
  CHECK(answer_to(
            server, "*12\r\n$5\r\nLPUSH\r\n$1\r\nl\r\n" + [&] {
              std::string items;
              for (int i = 0; i < 10; ++i) items += bulk(value);
              return items;
            }()) == ":10\r\n");
  std::string all = "MGET";
  for (int i = 0; i < 30; ++i) all += " b";
  std::vector<Peer> greedy;
  for (int i = 0; i < 100; ++i) {
    greedy.push_back(server.connect(4096));
    greedy.back().send(i % 2 == 0 ? all + "\r\n" : "LRANGE l 0 -1\r\n");
    CHECK(greedy.back().receive_exactly(1) == "*");  // it has been executed
  }
  CHECK(server.memory() < 80'000'000);  // 11 of it are the values
  const std::string one = bulk(value);
  CHECK(greedy[0].receive_exactly(4) == "30\r\n");
  for (int i = 0; i < 30; ++i) {
    const bool same = greedy[0].receive_exactly(one.size()) == one;
    CHECK(same);
  }
}

TEST_CASE("values that only slow readers still hold count as used memory") {
  Example server("resp_server", {"--max-memory", "8000000"});
  const auto set = [&] {
    return answer_to(server, "*3\r\n$3\r\nSET\r\n$1\r\nb\r\n" + bulk(std::string(3 << 20, 'v')));
  };
  CHECK(set() == "+OK\r\n");
  std::vector<Peer> readers;
  bool refused = false;
  for (int i = 0; i < 5 && !refused; ++i) {
    readers.push_back(server.connect(4096));
    readers.back().send("GET b\r\n");
    CHECK(readers.back().receive_exactly(1) == "$");
    refused = set().starts_with("-OOM");
  }
  CHECK(refused);
  for (Peer& reader : readers) reader.reset();
  CHECK(eventually([&] { return set() == "+OK\r\n"; }));
}

TEST_CASE("a client that reads nothing of its answer is reset after the write timeout") {
  Example server("resp_server", {"--write-timeout", "200"});
  CHECK(answer_to(server, "SET b " + std::string(60000, 'v') + "\r\n") == "+OK\r\n");
  Peer greedy = server.connect(4096);
  std::string commands;
  for (int i = 0; i < 200; ++i) commands += "GET b\r\n";
  greedy.send(commands);
  CHECK(is_reset(greedy));
  CHECK(answer_to(server, "PING\r\n") == "+PONG\r\n");
}

TEST_CASE("a list too long for one answer is read by parts") {
  Example server("resp_server");
  std::string push = "*60002\r\n$5\r\nLPUSH\r\n$1\r\nl\r\n";
  for (int i = 0; i < 60000; ++i) push += "$1\r\nx\r\n";
  CHECK(answer_to(server, push + push) == ":60000\r\n:120000\r\n");
  CHECK(answer_to(server, "LRANGE l 0 -1\r\n") == "-ERR the reply would be too long\r\n");
  const std::string part = answer_to(server, "LRANGE l 0 59999\r\n");
  CHECK(part.starts_with("*60000\r\n$1\r\nx\r\n"));
  CHECK(part.size() == 8 + 60000 * 7);
}

TEST_CASE("memory is bounded: keys by the limit, commands by theirs, replies by the reader") {
  Example server("resp_server", {"--max-memory", "8000000"});
  Peer peer = server.connect();
  const std::string value(1 << 20, 'v');
  bool refused = false;
  for (int i = 0; i < 20 && !refused; ++i) {
    peer.send("*3\r\n$3\r\nSET\r\n" + bulk("key" + std::to_string(i)) + bulk(value));
    const std::string answer = peer.receive_exactly(5);
    refused = answer.starts_with("-OOM");
    CHECK((refused || answer == "+OK\r\n"));
  }
  CHECK(refused);

  // Sixty clients that announce much and send little.
  std::vector<Peer> announcers;
  for (int i = 0; i < 60; ++i) {
    announcers.push_back(server.connect());
    announcers.back().send("*65536\r\n$16000000\r\nabc");
  }
  // One that asks for much and reads nothing.
  Peer greedy = server.connect(4096);
  std::string commands;
  for (int i = 0; i < 2000; ++i) commands += "GET key0\r\n";
  greedy.send(commands);
  CHECK(server.memory() < 100'000'000);
}

TEST_CASE("a client that resets in the middle of everything harms no other") {
  Example server("resp_server");
  for (int i = 0; i < 50; ++i) {
    Peer peer = server.connect();
    peer.send("PING\r\n*2\r\n$4\r\nECHO\r\n$10\r\nab");
    peer.reset();
  }
  CHECK(answer_to(server, "PING\r\n") == "+PONG\r\n");
  CHECK(server.end() == 0);
}

TEST_CASE("SIGTERM ends idle connections, and cuts off nobody") {
  Example server("resp_server");
  Peer idle = server.connect();
  idle.send("PING\r\n");
  CHECK(idle.receive_exactly(7) == "+PONG\r\n");
  Peer midway = server.connect();
  midway.send("*2\r\n$4\r\nECHO\r\n$10\r\nab");
  CHECK(answer_to(server, "PING\r\n") == "+PONG\r\n");
  CHECK(server.begin_end());
  CHECK(idle.wait_for_end() == 0);
  midway.send("cdefghij\r\n");
  CHECK(midway.receive_all() == "$10\r\nabcdefghij\r\n");
  idle.close();
  midway.close();
  CHECK(server.wait() == 0);
}

TEST_CASE("a key with a deadline counts twice, for as long as it has one") {
  resp::Store store;
  const std::string key(1000, 'k');
  const auto later = resp::Time(1h);
  resp::Entry& entry = store.put(key, store.make_text("v"));
  const std::size_t without = store.bytes();
  store.set_deadline(key, entry, later);
  const std::size_t with = store.bytes();
  CHECK(with >= without + key.size());
  store.set_deadline(key, entry, later + 1h);
  CHECK(store.bytes() == with);
  store.set_deadline(key, entry, std::nullopt);
  CHECK(store.bytes() == without);
  store.set_deadline(key, entry, later);
  store.expire(later);
  CHECK(store.bytes() == 0);
}

#endif
