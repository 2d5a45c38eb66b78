// RESP: commands come out the same however the stream is cut, and each gets one whole reply.
#include <chrono>
#include <string>
#include <string_view>

#include "../../examples/resp/commands.h"
#include "../../examples/resp/parser.h"
#include "input.h"

using namespace weir::fuzz;

namespace {

/// Takes one reply off the front; false if there is none.
bool take_reply(std::string_view& text, int depth = 0) {
  const std::size_t end = text.find("\r\n");
  if (end == std::string_view::npos || end == 0 || depth > 3) return false;
  const char kind = text[0];
  const std::string_view head = text.substr(1, end - 1);
  text.remove_prefix(end + 2);
  if (kind == '+' || kind == '-') return head.find_first_of("\r\n") == std::string_view::npos;
  long long number = 0;
  const auto [stop, error] = std::from_chars(head.begin(), head.end(), number);
  if (error != std::errc() || stop != head.end()) return false;
  if (kind == ':') return true;
  if (kind == '$') {
    if (number == -1) return true;
    const auto size = static_cast<std::size_t>(number);
    if (number < 0 || text.size() < size + 2 || text.substr(size, 2) != "\r\n") return false;
    text.remove_prefix(size + 2);
    return true;
  }
  if (kind != '*' || number < 0) return false;
  for (long long i = 0; i < number; ++i) {
    if (!take_reply(text, depth + 1)) return false;
  }
  return true;
}

std::string transcript(std::string_view bytes, std::uint8_t cut) {
  resp::Parser parser({.line = 64, .arguments = 16, .command = 256});
  resp::Database database(4096);
  std::string all;
  resp::Time now{};
  Pieces pieces(bytes, cut);
  try {
    while (!pieces.empty()) {
      parser.feed(pieces.next());
      while (const resp::Parser::Command* command = parser.next()) {
        require(!command->empty());
        now += std::chrono::milliseconds(300);
        resp::Reply made;
        database.execute(*command, now, made);
        std::string reply;
        for (bool more = true; more; made.text.clear()) {
          more = made.fill();
          require(made.text.size() < 2 * resp::Reply::kPiece + 32);
          reply += made.text;
        }
        std::string_view rest = reply;
        require(take_reply(rest));
        require(rest.empty());
        all += reply;
      }
    }
    all += parser.midway() ? "midway" : "whole";
  } catch (const resp::ProtocolError& error) {
    all += error.what();
  }
  return all;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  const std::uint8_t cut = input.choice();
  require(transcript(input.rest(), cut) == transcript(input.rest(), 0));
  return 0;
}
