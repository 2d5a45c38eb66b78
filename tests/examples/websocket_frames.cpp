// Frames and handshakes of the WebSocket server, without a socket.
#include <weir/weir.h>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../../examples/websocket/frames.h"
#include "../../examples/websocket/handshake.h"

using namespace weir;
using namespace std::chrono_literals;
using namespace std::string_literals;

namespace {

std::string in_hex(std::string_view bytes) {
  std::string text;
  for (const char c : bytes) {
    text += "0123456789abcdef"[static_cast<unsigned char>(c) >> 4];
    text += "0123456789abcdef"[static_cast<unsigned char>(c) & 15];
  }
  return text;
}

std::string request_with(const std::string& lines,
                         const std::string& first = "GET /chat HTTP/1.1") {
  return first + "\r\nHost: x\r\n" + lines + "\r\n";
}

const std::string kUpgrade = "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n";
const std::string kKey = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const std::string kVersion = "Sec-WebSocket-Version: 13\r\n";

int status_of(const std::string& request) { return websocket::read_upgrade(request).status; }

/// A client's frame, whose head is `first` and the length in the shortest form.
std::string masked(unsigned first, std::string_view payload) {
  std::string frame = websocket::make_frame(websocket::Opcode::text, payload);
  frame.resize(frame.size() - payload.size());
  frame[0] = static_cast<char>(first);
  frame[1] = static_cast<char>(frame[1] | 0x80);
  constexpr std::string_view kMask = "\x01\x80\xff\x37";
  frame += kMask;
  for (std::size_t i = 0; i < payload.size(); ++i) {
    frame += static_cast<char>(payload[i] ^ kMask[i % 4]);
  }
  return frame;
}

/// What comes of bytes that a client sends and ends with: messages as frames, pings and closes as
/// they are, then the code, if there is one. Every read is dropped once behind each byte.
Task<std::vector<std::string>> taken_from(std::string bytes, std::size_t most) {
  auto [client, server] = stream_pair();
  std::vector<std::string> taken;
  websocket::Assembly message(most);
  for (std::size_t i = 0; i <= bytes.size(); ++i) {
    if (i < bytes.size()) co_await client.send(std::string_view(bytes).substr(i, 1));
    if (i == bytes.size()) co_await client.shutdown();
    co_await client.flush();
    for (;;) {
      auto [error, frame] =
          co_await as_tuple(timeout(0ms, websocket::read_frame(server, message.room())));
      if (error == errc::deadline) break;
      if (error || !frame) {
        taken.emplace_back(error ? "broken" : "end");
        co_return taken;
      }
      websocket::Code code = frame->problem;
      if (code == 0 && frame->opcode >= websocket::Opcode::close) {
        taken.push_back(frame->payload);
      } else if (code == 0) {
        code = message.add(std::move(*frame));
        if (code == 0 && message.whole()) taken.push_back(message.take());
      }
      if (code == 0) continue;
      taken.push_back(std::to_string(code));
      co_return taken;
    }
  }
  co_return taken;
}

std::vector<std::string> taken(std::string bytes, std::size_t most = 1000) {
  return run(taken_from(std::move(bytes), most));
}

}  // namespace

TEST_CASE("SHA-1 and base64 give what RFC 3174 and RFC 4648 say") {
  using websocket::base64;
  using websocket::sha1;
  CHECK(in_hex(sha1("")) == "da39a3ee5e6b4b0d3255bfef95601890afd80709");
  CHECK(in_hex(sha1("abc")) == "a9993e364706816aba3e25717850c26c9cd0d89d");
  CHECK(in_hex(sha1("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")) ==
        "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
  std::string repeated;
  for (int i = 0; i < 80; ++i) repeated += "01234567";
  CHECK(in_hex(sha1(repeated)) == "dea356a2cddd90c7a7ecedc5ebb563934f460452");
  CHECK(in_hex(sha1(std::string(1'000'000, 'a'))) == "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
  CHECK(base64("").empty());
  CHECK(base64("f") == "Zg==");
  CHECK(base64("fo") == "Zm8=");
  CHECK(base64("foobar") == "Zm9vYmFy");
  CHECK(base64("\xff\xef\xbe") == "/+++");
}

TEST_CASE("a WebSocket request gets the answer of RFC 6455, and others the status that says why") {
  const websocket::Upgrade good =
      websocket::read_upgrade(request_with(kUpgrade + kKey + kVersion, "GET /chat?a HTTP/1.1"));
  CHECK(good.status == 101);
  CHECK(good.path == "/chat");
  CHECK(good.accept == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
  CHECK(websocket::answer(good).find(
            "\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n") != std::string::npos);
  const std::string sound = kUpgrade + kKey + kVersion;
  CHECK(status_of(request_with("upgrade: WebSocket\r\nConnection: UPGRADE\r\n" + kKey +
                               kVersion)) == 101);
  CHECK(status_of(request_with(sound, "POST /chat HTTP/1.1")) == 405);
  CHECK(status_of(request_with("Connection: Upgrade\r\n" + kKey + kVersion)) == 426);
  CHECK(status_of(request_with("Upgrade: websocket\r\n" + kKey + kVersion)) == 426);
  CHECK(status_of(request_with(kUpgrade + kKey)) == 426);
  CHECK(status_of(request_with(kUpgrade + kKey + "Sec-WebSocket-Version: 8\r\n")) == 426);
  for (const std::string& request : std::vector<std::string>{
           request_with(kUpgrade + kVersion), request_with(sound + kKey),
           request_with(kUpgrade + kVersion + "Sec-WebSocket-Key: dGhlIHNhbXBsZQ==\r\n"),
           request_with(sound, "GET /chat HTTP/1.0"), request_with(sound, "GET chat HTTP/1.1"),
           request_with(sound, "GET /chat"), request_with(sound, "GET /a b HTTP/1.1"),
           request_with(sound + "Host: y\r\n"), "GET / HTTP/1.1\r\n" + sound + "\r\n",
           request_with(sound + "Content-Length: 5\r\n"),
           request_with(sound + "Transfer-Encoding: chunked\r\n"),
           request_with(sound + "no header\r\n"), request_with(sound + "Name : x\r\n"),
           request_with(sound + "Name: x\r\n folded\r\n"),
           request_with(sound + "Name: x\nNext: y\r\n"), request_with(sound + "Name: x\0y\r\n"s),
           "\r\n\r\n"s, ""s}) {
    CAPTURE(request);
    CHECK(status_of(request) == 400);
  }
}

TEST_CASE(
    "messages come whole out of frames that are cut anywhere, and no dropped read loses any") {
  using Strings = std::vector<std::string>;
  using websocket::make_frame;
  using websocket::Opcode;
  CHECK(taken("") == Strings{"end"});
  CHECK(taken(masked(0x81, "hello") + masked(0x82, "")) ==
        Strings{make_frame(Opcode::text, "hello"), make_frame(Opcode::binary, ""), "end"});
  for (const std::size_t size : {125U, 126U, 300U}) {
    const std::string text(size, 'x');
    CHECK(taken(masked(0x82, text)) == Strings{make_frame(Opcode::binary, text), "end"});
  }
  // A ping between the fragments, a character in two of them.
  CHECK(taken(masked(0x01, "gr\xc3") + masked(0x89, "ping") + masked(0x00, "") +
              masked(0x80, "\xbc\xc3\x9f")) ==
        Strings{"ping", make_frame(Opcode::text, "gr\xc3\xbc\xc3\x9f"), "end"});
  CHECK(taken(masked(0x88, "\x03\xe8")) == Strings{"\x03\xe8", "end"});
  CHECK(taken(masked(0x81, "cut off").substr(0, 9)) == Strings{"broken"});
}

TEST_CASE("what RFC 6455 forbids in a client's frames ends the connection with its code") {
  const auto code_for = [](const std::string& bytes, std::size_t most = 1000) {
    return taken(bytes, most).back();
  };
  CHECK(code_for("\x81\x05hello") == "1002");         // no mask
  for (const unsigned bit : {0x40U, 0x20U, 0x10U}) {  // reserved
    CHECK(code_for(masked(0x81 | bit, "x")) == "1002");
  }
  for (const unsigned opcode : {3U, 4U, 5U, 6U, 7U, 11U, 12U, 13U, 14U, 15U}) {
    CHECK(code_for(masked(0x80 | opcode, "")) == "1002");
  }
  CHECK(code_for(masked(0x09, "")) == "1002");                       // a ping in fragments
  CHECK(code_for(masked(0x89, std::string(126, 'x'))) == "1002");    // a ping that is too long
  CHECK(code_for(masked(0x80, "x")) == "1002");                      // goes on from nothing
  CHECK(code_for(masked(0x01, "x") + masked(0x81, "y")) == "1002");  // begins within another
  CHECK(code_for("\x82\xfe\x00\x7d"s + std::string(4 + 125, 'x')) == "1002");  // not the shortest
  CHECK(code_for("\x82\xff\x00\x00\x00\x00\x00\x00\xff\xff"s + "mask") == "1002");
  CHECK(code_for("\x82\xff\x80\x00\x00\x00\x00\x01\x00\x00"s + "mask") == "1002");
  CHECK(code_for("\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff"s + "mask") == "1009");
  CHECK(code_for(masked(0x82, std::string(11, 'x')), 10) == "1009");
  CHECK(code_for(masked(0x02, "123456") + masked(0x80, "12345"), 10) == "1009");
  CHECK(code_for(masked(0x02, "123456") + masked(0x80, "1234"), 10) == "end");
  for (const std::string& text :
       {"\x80"s, "\xc0\x80"s, "\xc1\xbf"s, "\xe0\x9f\xbf"s, "\xed\xa0\x80"s, "\xf0\x8f\xbf\xbf"s,
        "\xf4\x90\x80\x80"s, "\xf5\x80\x80\x80"s, "\xff"s, "\xc3"s, "\xe2\x82"s, "\xe2\x28\xa1"s}) {
    CAPTURE(in_hex(text));
    CHECK(code_for(masked(0x81, text)) == "1007");
    CHECK(code_for(masked(0x82, text)) == "end");
  }
  CHECK(code_for(masked(0x01, "\xff") + masked(0x00, "")) == "1007");  // at once
}

TEST_CASE("a Close is answered with its code, or with what is wrong with it") {
  using websocket::answer_to_close;
  const auto answer_to_code = [](unsigned code, const std::string& reason = {}) {
    return static_cast<unsigned>(answer_to_close(
        std::string{static_cast<char>(code >> 8), static_cast<char>(code & 0xff)} + reason));
  };
  CHECK(answer_to_close("") == 0);
  CHECK(answer_to_close("x") == 1002);
  for (const unsigned code : {1000U, 1001U, 1003U, 1007U, 1011U, 1014U, 3000U, 4999U}) {
    CHECK(answer_to_code(code, "gr\xc3\xbc\xc3\x9f") == code);
  }
  for (const unsigned code :
       {0U, 999U, 1004U, 1005U, 1006U, 1015U, 1016U, 2000U, 2999U, 5000U, 65535U}) {
    CHECK(answer_to_code(code) == 1002);
  }
  CHECK(answer_to_code(1000, "\xc3") == 1007);
}
