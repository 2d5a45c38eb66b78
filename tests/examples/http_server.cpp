// The file server: driven by curl, ab and wrk, and by peers that break the protocol.
#ifdef WEIR_EXAMPLES_DIR
#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "example.h"

using namespace weir;
using namespace weir::test;
using namespace std::string_literals;

namespace {

bool built() {
  if (std::filesystem::exists(Example::path_of("http_server"))) return true;
  MESSAGE("skipped: http_server is not built, llhttp is missing");
  return false;
}

/// A directory with something in it, and something beside it that nobody may see.
class Tree {
 public:
  Tree() {
    std::string name = (std::filesystem::temp_directory_path() / "weir-http-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    base_ = name;
    std::filesystem::create_directories(base_ / "site" / "sub dir");
    write("secret.txt", "secret");
    write("site/index.html", "<p>index</p>");
    write("site/digits.txt", "0123456789");
    write("site/empty.txt", "");
    write("site/.hidden", "secret");
    write("site/sub dir/index.html", "<p>sub</p>");
    write("site/big.bin", big());
    std::filesystem::create_symlink("../secret.txt", base_ / "site" / "link-out");
    std::filesystem::create_symlink("/etc/passwd", base_ / "site" / "link-away");
    std::filesystem::create_symlink("digits.txt", base_ / "site" / "link-in");
    REQUIRE(::mkfifo((base_ / "site" / "fifo").c_str(), 0600) == 0);
  }
  Tree(const Tree&) = delete;
  Tree& operator=(const Tree&) = delete;
  ~Tree() { std::filesystem::remove_all(base_); }

  [[nodiscard]] std::string path() const { return (base_ / "site").string(); }
  static const std::string& big() {
    static const std::string bytes = pattern(5'000'000);
    return bytes;
  }

 private:
  void write(const char* name, std::string_view text) const {
    std::ofstream(base_ / name, std::ios::binary) << text;
  }
  std::filesystem::path base_;
};

struct Site : Tree {
  explicit Site(std::vector<std::string> arguments = {})
      : server("http_server", with_root(std::move(arguments))) {}
  std::vector<std::string> with_root(std::vector<std::string> arguments) const {
    arguments.insert(arguments.end(), {"--root", path()});
    return arguments;
  }
  [[nodiscard]] std::string url(const std::string& target) const {
    return "http://" + server.address().to_string() + target;
  }
  Example server;
};

struct Answer {
  int status = 0;
  std::string head;
  std::string body;

  [[nodiscard]] bool has(std::string_view line) const {
    return head.find("\r\n" + std::string(line) + "\r\n") != std::string::npos;
  }
};

/// Reads one answer off a connection.
Answer receive_answer(Peer& peer, bool with_body = true) {
  Answer answer;
  while (!answer.head.ends_with("\r\n\r\n")) {
    const std::string byte = peer.receive_exactly(1);
    if (byte.empty()) return answer;
    answer.head += byte;
  }
  if (answer.head.starts_with("HTTP/1.1 ")) answer.status = std::stoi(answer.head.substr(9));
  const std::size_t length = answer.head.find("Content-Length: ");
  REQUIRE(length != std::string::npos);
  if (with_body) answer.body = peer.receive_exactly(std::stoul(answer.head.substr(length + 16)));
  return answer;
}

/// Sends the bytes on a new connection, and reads one answer.
Answer ask(const Site& site, std::string_view bytes) {
  Peer peer = site.server.connect();
  peer.send(bytes);
  return receive_answer(peer);
}

Answer get(const Site& site, const std::string& target, const std::string& headers = {}) {
  return ask(site, "GET " + target + " HTTP/1.1\r\nHost: x\r\n" + headers + "\r\n");
}

}  // namespace

TEST_CASE("the file server reads its options, refuses bad ones, and ends on SIGTERM") {
  if (!built()) return;
  const Tree root;
  check_command_line("http_server", {"--root", root.path()});
  const Ran ran =
      run_program(Example::path_of("http_server"), {"--port", "0", "--root", "/no/such/directory"});
  CHECK(ran.status == 1);
  CHECK(ran.output.find("/no/such/directory") != std::string::npos);
}

TEST_CASE("curl gets files, parts of files, heads and texts") {
  const std::string curl = client_program("curl");
  if (curl.empty() || !built()) return;
  for (const char* engine : {"auto", "epoll"}) {
    const Site site({"--engine", engine});
    const auto fetch = [&](std::vector<std::string> arguments, const std::string& target) {
      arguments.insert(arguments.begin(), {"-sS", "--max-time", "120", "--noproxy", "*"});
      arguments.push_back(site.url(target));
      return run_program(curl, arguments).output;
    };
    CHECK(fetch({}, "/hello") == "hello, world\n");
    CHECK(fetch({}, "/") == "<p>index</p>");
    CHECK(fetch({}, "/digits.txt?query") == "0123456789");
    CHECK(fetch({}, "/empty.txt").empty());
    CHECK(fetch({}, "/sub%20dir/") == "<p>sub</p>");
    CHECK(fetch({"-L"}, "/sub%20dir") == "<p>sub</p>");
    CHECK(fetch({}, "/link-in") == "0123456789");
    const bool whole = fetch({}, "/big.bin") == Tree::big();
    CHECK(whole);
    const bool part = fetch({"-r", "4000000-"}, "/big.bin") == Tree::big().substr(4'000'000);
    CHECK(part);
    CHECK(fetch({"-r", "2-5"}, "/digits.txt") == "2345");
    CHECK(fetch({"-r", "-3"}, "/digits.txt") == "789");
    const std::string head = fetch({"-I"}, "/big.bin");
    CHECK(head.starts_with("HTTP/1.1 200 OK\r\n"));
    CHECK(head.find("Content-Length: 5000000\r\n") != std::string::npos);
    CHECK(fetch({"-o", "/dev/null", "-w", "%{http_code}"}, "/none") == "404");
    CHECK(fetch({"-o", "/dev/null", "-w", "%{http_code}", "-d", "a=b"}, "/hello") == "405");
    // Two transfers, one connection.
    const std::string connects = fetch(
        {"-w", "%{num_connects}", "-o", "/dev/null", "-o", "/dev/null", site.url("/digits.txt")},
        "/hello");
    CHECK(connects == "10");
  }
}

TEST_CASE("ab and wrk finish without an error") {
  if (!built()) return;
  const std::string ab = client_program("ab");
  const std::string wrk = client_program("wrk");
  const Site site({"--threads", "2"});
  if (!ab.empty()) {
    for (const std::string& target : {"/hello"s, "/digits.txt"s}) {
      for (const char* keep_alive : {"-k", "-q"}) {  // -q: nothing more
        const Ran ran =
            run_program(ab, {"-q", keep_alive, "-n", "2000", "-c", "20", site.url(target)});
        CAPTURE(ran.output);
        CHECK(ran.status == 0);
        CHECK(ran.output.find("Complete requests:      2000\n") != std::string::npos);
        CHECK(ran.output.find("Failed requests:        0\n") != std::string::npos);
        CHECK(ran.output.find("Non-2xx") == std::string::npos);
      }
    }
  }
  if (!wrk.empty()) {
    const Ran ran = run_program(
        wrk, {"-d", "1", "-t", "1", "-c", "10", "--timeout", "100s", site.url("/digits.txt")});
    CAPTURE(ran.output);
    CHECK(ran.status == 0);
    CHECK(ran.output.find("Requests/sec") != std::string::npos);
    CHECK(ran.output.find("Non-2xx") == std::string::npos);
    CHECK(ran.output.find("Socket errors") == std::string::npos);
  }
}

TEST_CASE("pipelined requests are answered in order, however they are cut") {
  if (!built()) return;
  const Site site;
  const std::string requests =
      "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"
      "\r\nHEAD /big.bin HTTP/1.1\r\nHost: x\r\n\r\n"
      "GET /digits.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nthrow"
      "GET /none HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: "
      "1\r\n\r\n"
      "GET http://x/digits.txt HTTP/1.1\r\nHost: x\r\nRange: bytes=9-20\r\nConnection: "
      "close\r\n\r\n"
      "GET /never HTTP/1.1\r\nHost: x\r\n\r\n";
  for (const std::size_t piece : {std::size_t{1}, std::size_t{7}, requests.size()}) {
    Peer peer = site.server.connect();
    for (std::size_t i = 0; i < requests.size(); i += piece) {
      try {
        peer.send(std::string_view(requests).substr(i, piece));
      } catch (const std::system_error&) {
        break;  // it has said that it closes
      }
    }
    CHECK(receive_answer(peer).body == "hello, world\n");
    const Answer head = receive_answer(peer, false);
    CHECK(head.has("Content-Length: 5000000"));
    CHECK(receive_answer(peer).body == "0123456789");
    CHECK(receive_answer(peer).status == 404);
    const Answer last = receive_answer(peer);
    CHECK(last.status == 206);
    CHECK(last.has("Content-Range: bytes 9-9/10"));
    CHECK(last.has("Connection: close"));
    CHECK(last.body == "9");
    CHECK(peer.receive_all().empty());
  }
}

TEST_CASE("HTTP/1.0 clients get their connection closed unless they ask to keep it") {
  if (!built()) return;
  const Site site;
  Peer peer = site.server.connect();
  peer.send("GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  CHECK(receive_answer(peer).has("Connection: keep-alive"));
  peer.send("GET /hello HTTP/1.0\r\n\r\n");
  CHECK(receive_answer(peer).has("Connection: close"));
  CHECK(peer.receive().empty());
}

TEST_CASE("ranges are single, within the file, or not at all") {
  if (!built()) return;
  const Site site;
  const auto range = [&](const std::string& value) {
    return get(site, "/digits.txt", "Range: " + value + "\r\n");
  };
  CHECK(range("bytes=0-0").body == "0");
  CHECK(range("bytes=-100").body == "0123456789");
  CHECK(range("bytes=-100").status == 206);
  CHECK(range("bytes=3-99999999999999999999").status == 200);
  for (const std::string& wrong : {"bytes=10-"s, "bytes=-0"s}) {
    CHECK(range(wrong).status == 416);
    CHECK(range(wrong).has("Content-Range: bytes */10"));
  }
  for (const std::string& whole :
       {"bytes=0-1,3-4"s, "bytes=5-2"s, "bytes=-"s, "bytes=a-b"s, "lines=1-2"s, "bytes"s, ""s}) {
    CAPTURE(whole);
    CHECK(range(whole).status == 200);
    CHECK(range(whole).body == "0123456789");
  }
  CHECK(get(site, "/empty.txt", "Range: bytes=0-\r\n").status == 416);
}

TEST_CASE("no path leads out of the directory") {
  if (!built()) return;
  const Site site;
  for (const std::string& target :
       {"/../secret.txt"s, "/%2e%2e/secret.txt"s, "/sub%20dir/../../secret.txt"s,
        "/..%2fsecret.txt"s, "//../secret.txt"s, "/./../secret.txt"s, "/link-out"s, "/link-away"s,
        "/.hidden"s, "/%2ehidden"s, "/sub%20dir/..%2f..%2fsecret.txt"s, "/fifo"s, "/none/"s,
        "/digits.txt/"s, "/digits.txt/x"s, "/etc/passwd"s, "//etc/passwd"s,
        "/" + std::string(5000, 'a')}) {
    CAPTURE(target);
    const Answer answer = get(site, target);
    CHECK(answer.status == 404);
    CHECK(answer.body == "404 Not Found\n");
  }
  for (const std::string& target :
       {"/%"s, "/%4"s, "/%zz"s, "/%00"s, "/digits.txt%00.html"s, "*"s}) {
    CHECK(get(site, target).status == 400);
  }
  // To this host, not to another one of that name.
  CHECK(get(site, "//sub%20dir").has("Location: /sub%20dir/"));
}

TEST_CASE("a request that is none is answered with its status and the end of the connection") {
  if (!built()) return;
  const Site site;
  struct Case {
    int status;
    std::string bytes;
  };
  for (const Case& each :
       {Case{400, "GET /hello HTTP/1.1\r\n\r\n"}, Case{400, "GET /hello\r\nHost x\r\n\r\n"},
        Case{400, "GET /hello HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n"},
        Case{400, "GET /hello HTTP/1.1\r\nHost: x\r\nBad Name: y\r\n\r\n"},
        Case{400, "GET /hello HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n"},
        Case{400,
             "GET /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
             "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
        Case{400, "GET /hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"},
        Case{405, "POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n"},
        Case{405, "CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n"},
        Case{413, "GET /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"},
        Case{413, "GET /hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n20000\r\n" +
                      std::string(70000, 'x')},
        // Barely too long, most of it behind the head in the same packets.
        Case{413, "GET /hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nff00\r\n" +
                      std::string(0xff00, 'x') + "\r\n100\r\n" + std::string(0x100, 'x') +
                      "\r\n0\r\n\r\n"},
        Case{417, "GET /hello HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n"},
        Case{431, "GET /hello HTTP/1.1\r\nHost: x\r\nLong: " + std::string(20000, 'x')},
        Case{431, "GET /" + std::string(20000, 'x')}, Case{400, std::string(20000, '\n')},
        Case{431,
             [] {
               std::string lines;
               for (int i = 0; i < 10000; ++i) lines += "\r\n";
               return lines;
             }()},
        Case{505, "GET /hello HTTP/3.0\r\nHost: x\r\n\r\n"}}) {
    CAPTURE(each.bytes.substr(0, 100));
    Peer peer = site.server.connect();
    peer.send(each.bytes);
    const Answer answer = receive_answer(peer);
    CHECK(answer.status == each.status);
    CHECK(answer.has("Connection: close"));
    CHECK(peer.receive_all().empty());
  }
  for (const std::string& bytes : {"\x16\x03\x01\x02\x00\x01"s, "\x00\xff\xfe"s, "NONSENSE /"s}) {
    const int status = ask(site, bytes).status;
    CHECK((status == 400 || status == 501));
  }
  CHECK(get(site, "/hello").status == 200);
}

TEST_CASE("what another server could take for something else is refused, and nothing behind it") {
  if (!built()) return;
  const Site site;
  struct Case {
    int status;
    std::string bytes;
  };
  const std::string get = "GET /hello HTTP/1.1\r\nHost: x\r\n";
  const std::string chunked = get + "Transfer-Encoding: chunked\r\n\r\n";
  const std::string empty = "0\r\n\r\n";
  for (const Case& each : {
           // Chunks whose data, or whose lines, end in anything but CRLF.
           Case{400, chunked + "3\r\nabcXX0\r\n\r\n"},
           Case{400, chunked + "3\r\nabc0\r\n\r\n"},
           Case{400, chunked + "3\r\nabc\n0\r\n\r\n"},
           Case{400, chunked + "3\nabc\r\n0\r\n\r\n"},
           Case{400, chunked + "3;a\nabc\r\n0\r\n\r\n"},
           Case{400, chunked + "0\n\n"},
           Case{400, chunked + "0\r\n\n"},
           Case{400, chunked + "0\r\nA: b\r\n c\r\n\r\n"},
           // Sizes that are not hexadecimal digits alone.
           Case{400, chunked + "3 \r\nabc\r\n" + empty},
           Case{400, chunked + "+3\r\nabc\r\n" + empty},
           Case{400, chunked + "0x3\r\nabc\r\n" + empty},
           Case{400, chunked + "-3\r\nabc\r\n" + empty},
           Case{400, chunked + "\r\nabc\r\n" + empty},
           Case{400, chunked + "ffffffffffffffff3\r\nabc\r\n" + empty},
           // Transfer codings.
           Case{400, "GET /hello HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + empty},
           Case{400, get + "Transfer-Encoding:\r\n chunked\r\n\r\n" + empty},
           Case{400, get + "Transfer-Encoding: chunked, chunked\r\n\r\n" + empty},
           Case{400,
                get + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + empty},
           Case{501, get + "Transfer-Encoding: gzip, chunked\r\n\r\n" + empty},
           Case{501, get + "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n" + empty},
           Case{400, get + "Transfer-Encoding: chunked, gzip\r\n\r\n" + empty},
           Case{400, get + "Transfer-Encoding: identity\r\n\r\n"},
           Case{400, get + "Transfer-Encoding: xchunked\r\n\r\n" + empty},
           Case{400, get + "Transfer-Encoding: chunked;q=1\r\n\r\n" + empty},
           Case{400, get + "Transfer-Encoding: \x0b" + "chunked\r\n\r\n" + empty},
           Case{400, get + "Transfer-Encoding:\r\n\r\n"},
           Case{400, get + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + empty},
           Case{400, get + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + empty},
           // Lengths.
           Case{400, get + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"},
           Case{400, get + "Content-Length: 3, 3\r\n\r\nabc"},
           Case{400, get + "Content-Length: +3\r\n\r\nabc"},
           Case{400, get + "Content-Length: 3 3\r\n\r\nabc"},
           Case{400, get + "Content-Length:\r\n\r\n"},
           // Lines, names and values.
           Case{400, get + "A: b\r\n c\r\n\r\n"},
           Case{400, get + "A: b\r\n\tc\r\n\r\n"},
           Case{400, "GET /hello HTTP/1.1\r\n Host: x\r\n\r\n"},
           Case{400, get + "A : b\r\n\r\n"},
           Case{400, get + "Transfer-Encoding : chunked\r\n\r\n" + empty},
           Case{400, get + "A\t: b\r\n\r\n"},
           Case{400, get + ": b\r\n\r\n"},
           Case{400, get + "A: b\rContent-Length: 3\r\n\r\nabc"},
           Case{400, get + "A: b\nB: c\r\n\r\n"},
           Case{400, get + "\n"},
           Case{400, get + "\r\r\n"},
           Case{400, get + "A: b" + std::string(1, '\0') + "\r\n\r\n"},
           Case{400, get + "A: b\x01\r\n\r\n"},
           Case{400, "GET /hello HTTP/1.1\nHost: x\n\n"},
           // Hosts.
           Case{400, "GET /hello HTTP/1.1\r\nHost: a b<>\r\n\r\n"},
           Case{400, "GET /hello HTTP/1.1\r\nHost: a/b\r\n\r\n"},
           Case{400, "GET /hello HTTP/1.1\r\nHost: a@b\r\n\r\n"},
           Case{400, "GET /hello HTTP/1.1\r\nHost: a:b\r\n\r\n"},
           Case{400, "GET /hello HTTP/1.1\r\nHost: [::1\r\n\r\n"},
           Case{400, "GET /hello HTTP/1.1\r\nHost: [::1]x\r\n\r\n"},
       }) {
    CAPTURE(each.bytes);
    Peer peer = site.server.connect();
    peer.send(each.bytes + "GET /digits.txt HTTP/1.1\r\nHost: x\r\n\r\n");
    const Answer answer = receive_answer(peer);
    CHECK(answer.status == each.status);
    CHECK(answer.has("Connection: close"));
    CHECK(peer.receive_all().empty());
  }
  for (const std::string& host : {"a-b.c"s, "a-b.c:80"s, "[::1]"s, "[::1]:80"s, "1.2.3.4:"s, ""s}) {
    CAPTURE(host);
    CHECK(ask(site, "GET /hello HTTP/1.1\r\nHost: " + host + "\r\n\r\n").status == 200);
  }
  CHECK(ask(site, chunked + "3;a=b\r\nabc\r\n0\r\nT: 1\r\n\r\n").status == 200);
  CHECK(ask(site, get + "Transfer-Encoding: ChunkED\r\n\r\n" + empty).status == 200);
}

TEST_CASE("no answer to HEAD has a body, whatever is wrong with it") {
  if (!built()) return;
  const Site site({"--request-timeout", "100"});
  for (const std::string& bytes :
       {"HEAD /none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"s,
        "HEAD /% HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"s,
        "HEAD /hello HTTP/1.0\r\n\r\n"s, "HEAD /hello HTTP/1.1\r\n\r\n"s,
        "HEAD /hello HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n"s,
        "HEAD /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"s,
        "HEAD /hello HTTP/1.1\r\nHost: x\r\nA: " + std::string(20000, 'a'),
        "HEAD /hello HTTP/1.1\r\nHo"s}) {
    CAPTURE(bytes.substr(0, 60));
    Peer peer = site.server.connect();
    peer.send(bytes);
    const Answer answer = receive_answer(peer, false);
    CHECK(answer.status != 0);
    CHECK(peer.receive_all().empty());
  }
}

TEST_CASE("a request that does not come to its end in time is answered with 408") {
  if (!built()) return;
  const Site site({"--request-timeout", "100", "--idle-timeout", "300"});
  // The connection, and the answer. Whom the machine kept from asking until the idle timeout has
  // passed gets none: once more.
  const auto ask_in_time = [&](const char* request) {
    for (;;) {
      const auto begin = std::chrono::steady_clock::now();
      Peer peer = site.server.connect();
      try {
        peer.send(request);
        const auto sent = std::chrono::steady_clock::now();
        Answer answer = receive_answer(peer);
        if (answer.status != 0 || sent - begin < 300ms) {
          return std::pair(std::move(peer), std::move(answer));
        }
      } catch (const std::system_error&) {  // closed before it had asked
        REQUIRE(std::chrono::steady_clock::now() - begin >= 300ms);
      }
    }
  };
  auto [slow, answer] = ask_in_time("GET /hello HTTP/1.1\r\nHo");
  CHECK(answer.status == 408);
  CHECK(answer.has("Connection: close"));
  CHECK(slow.receive().empty());
  Peer idle = site.server.connect();  // has asked for nothing: nothing to say
  CHECK(idle.receive_all().empty());
  auto [between, good] = ask_in_time("GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK(good.status == 200);
  CHECK(between.receive_all().empty());
}

TEST_CASE("a client that reads nothing of a file is reset after the write timeout") {
  if (!built()) return;
  const Site site({"--write-timeout", "200"});
  Peer greedy = site.server.connect(4096);
  greedy.send("GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK(is_reset(greedy));
  CHECK(get(site, "/hello").status == 200);
}

TEST_CASE("SIGTERM lets a transfer come to its end") {
  if (!built()) return;
  Site site;
  Peer peer = site.server.connect(16384);
  peer.send("GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n");
  const std::string begin = peer.receive_exactly(15);
  CHECK(begin == "HTTP/1.1 200 OK");
  CHECK(site.server.begin_end());
  const Answer answer = receive_answer(peer);
  const bool whole = answer.body == Tree::big();
  CHECK(whole);
  peer.close();
  CHECK(site.server.wait() == 0);
}

TEST_CASE("SIGTERM ends a connection between two requests, and after the one that is under way") {
  if (!built()) return;
  Site site;
  Peer idle = site.server.connect();
  idle.send("GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK(receive_answer(idle).status == 200);
  Peer midway = site.server.connect();
  midway.send("GET /hello HTTP/1.1\r\nHo");
  CHECK(get(site, "/hello").status == 200);  // by now the server has that half
  CHECK(site.server.begin_end());
  CHECK(idle.receive_all().empty());
  midway.send("st: x\r\n\r\n");
  const std::string answer = midway.receive_all();
  CHECK(answer.starts_with("HTTP/1.1 200 OK"));
  CHECK(answer.find("Connection: close") != std::string::npos);
  idle.close();  // the server waits for their ends
  midway.close();
  CHECK(site.server.wait() == 0);
}

TEST_CASE("clients that ask for everything and read nothing cost little, and vanish without harm") {
  if (!built()) return;
  Site site;
  std::string requests;
  for (int i = 0; i < 50; ++i) requests += "GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n";
  std::vector<Peer> peers;
  for (int i = 0; i < 20; ++i) {
    peers.push_back(site.server.connect(4096));
    peers.back().send(requests);
    CHECK(peers.back().receive_exactly(15) == "HTTP/1.1 200 OK");
  }
  CHECK(get(site, "/hello").status == 200);
  CHECK(site.server.memory() < 60'000'000);
  for (Peer& peer : peers) peer.reset();
  CHECK(get(site, "/hello").status == 200);
  CHECK(site.server.end() == 0);
}
#endif
