#pragma once

#include <weir/weir.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace websocket {

enum class Opcode : std::uint8_t { continuation = 0, text = 1, binary = 2, close = 8, ping, pong };

/// Codes of Close frames (RFC 6455, section 7.4.1).
enum Code : std::uint16_t {
  kNone = 0,  // the frame is empty
  kNormal = 1000,
  kGoingAway = 1001,
  kProtocolError = 1002,
  kNoText = 1007,
  kTooBig = 1009,
};

struct Frame {
  Opcode opcode = Opcode::close;
  bool last = true;  // of its message
  std::string payload = {};
  Code problem = kNone;  // what breaks the rules is none: the connection ends with that code
};

/// Looks at text that comes in pieces, as RFC 3629 has it.
class Utf8 {
 public:
  /// False once no text can begin like that.
  bool see(std::string_view bytes) {
    for (const char c : bytes) sound_ = sound_ && see(static_cast<unsigned char>(c));
    return sound_;
  }
  /// No character is midway.
  [[nodiscard]] bool whole() const { return missing_ == 0; }

 private:
  bool see(unsigned char byte) {
    if (missing_ > 0) {
      const bool good = byte >= lowest_ && byte <= highest_;
      lowest_ = 0x80;
      highest_ = 0xbf;
      --missing_;
      return good;
    }
    if (byte < 0x80) return true;
    missing_ = byte < 0xe0 ? 1 : byte < 0xf0 ? 2 : 3;
    if (byte == 0xe0) lowest_ = 0xa0;   // no longer than it has to be
    if (byte == 0xed) highest_ = 0x9f;  // no half of a pair
    if (byte == 0xf0) lowest_ = 0x90;
    if (byte == 0xf4) highest_ = 0x8f;  // no more than there are
    return byte >= 0xc2 && byte <= 0xf4;
  }

  int missing_ = 0;
  unsigned char lowest_ = 0x80;
  unsigned char highest_ = 0xbf;
  bool sound_ = true;
};

inline bool is_utf8(std::string_view text) {
  Utf8 utf8;
  return utf8.see(text) && utf8.whole();
}

namespace detail {

inline unsigned at(const weir::Chunk& bytes, std::size_t place) {
  return std::to_integer<unsigned>(bytes.bytes()[place]);
}
/// What the first two bytes of a frame break.
inline Code problem_of(unsigned first, unsigned second) {
  const unsigned opcode = first & 0xf;
  const bool control = opcode >= 8;
  const bool bad = (first & 0x70) != 0 || (second & 0x80) == 0 || (opcode & 7) > 2 ||
                   (control && ((first & 0x80) == 0 || (second & 0x7f) > 125));
  return bad ? kProtocolError : kNone;
}

}  // namespace detail

/// A client's next frame; nothing at the end of the stream, or one within a head, while one within
/// the payload throws as `read_exactly` does. Of data no more than `most` bytes. A frame with a
/// problem is not taken, and no other comes after it. Safe to drop at any point: nothing is taken
/// before all is there.
weir::Task<std::optional<Frame>> read_frame(weir::ByteStream auto& stream, std::size_t most) {
  using detail::at;
  const weir::Chunk start = co_await stream.peek(2);
  if (start.size() < 2) co_return std::nullopt;
  Frame frame;
  frame.problem = detail::problem_of(at(start, 0), at(start, 1));
  if (frame.problem != kNone) co_return frame;
  frame.opcode = static_cast<Opcode>(at(start, 0) & 0xf);
  frame.last = (at(start, 0) & 0x80) != 0;

  std::uint64_t length = at(start, 1) & 0x7f;
  const std::size_t more = length == 127 ? 8 : length == 126 ? 2 : 0;
  const std::size_t header = 2 + more + 4;
  const weir::Chunk head = co_await stream.peek(header);
  if (head.size() < header) co_return std::nullopt;
  if (more > 0) length = 0;
  for (std::size_t i = 0; i < more; ++i) length = length << 8 | at(head, 2 + i);
  const bool shortest = more == 0 || length > (more == 2 ? 125 : 65535);
  if (!shortest || length >> 63 != 0) {
    frame.problem = kProtocolError;
  } else if (frame.opcode < Opcode::close && length > most) {
    frame.problem = kTooBig;
  }
  if (frame.problem != kNone) co_return frame;

  const weir::Chunk whole = co_await stream.read_exactly(header + length);
  frame.payload.assign(whole.view().substr(header));
  for (std::size_t i = 0; i < frame.payload.size(); ++i) {
    frame.payload[i] = static_cast<char>(frame.payload[i] ^ whole.view()[header - 4 + i % 4]);
  }
  co_return frame;
}

/// A server's: whole, and without a mask.
inline std::string make_frame(Opcode opcode, std::string_view payload) {
  std::string frame(1, static_cast<char>(0x80 | static_cast<unsigned>(opcode)));
  if (payload.size() < 126) {
    frame += static_cast<char>(payload.size());
  } else if (payload.size() < 65536) {
    frame += '\x7e';
    weir::append_big(frame, static_cast<std::uint16_t>(payload.size()));
  } else {
    frame += '\x7f';
    weir::append_big(frame, std::uint64_t{payload.size()});
  }
  return frame.append(payload);
}
inline std::string make_close(Code code) {
  std::string payload;
  if (code != kNone) weir::append_big(payload, static_cast<std::uint16_t>(code));
  return make_frame(Opcode::close, payload);
}

/// What a Close frame with this payload is answered with: its own code, if it may have that one.
inline Code answer_to_close(std::string_view payload) {
  if (payload.empty()) return kNone;
  if (payload.size() == 1) return kProtocolError;
  const auto code = static_cast<unsigned>(static_cast<unsigned char>(payload[0]) << 8 |
                                          static_cast<unsigned char>(payload[1]));
  const bool defined = (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014);
  if (!defined && (code < 3000 || code > 4999)) return kProtocolError;
  return is_utf8(payload.substr(2)) ? static_cast<Code>(code) : kNoText;
}

/// A message in its frames, of `most` bytes altogether.
class Assembly {
 public:
  explicit Assembly(std::size_t most) : most_(most) {}

  /// What `read_frame` may read.
  [[nodiscard]] std::size_t room() const { return most_ - bytes_.size(); }

  /// Adds a frame with data, of no more than `room` bytes; gives what is wrong with it there.
  Code add(Frame&& frame) {
    if (begun_ != (frame.opcode == Opcode::continuation)) return kProtocolError;
    if (!begun_) opcode_ = frame.opcode;
    begun_ = true;
    const bool text = opcode_ == Opcode::text;
    if (text && (!utf8_.see(frame.payload) || (frame.last && !utf8_.whole()))) return kNoText;
    if (bytes_.empty()) {
      bytes_ = std::move(frame.payload);
    } else {
      bytes_ += frame.payload;
    }
    whole_ = frame.last;
    return kNone;
  }

  [[nodiscard]] bool whole() const { return whole_; }
  /// The whole message as a server's frame; on to the next one.
  std::string take() {
    std::string frame = make_frame(opcode_, bytes_);
    *this = Assembly(most_);
    return frame;
  }

 private:
  std::size_t most_;
  Opcode opcode_ = Opcode::text;
  std::string bytes_;
  Utf8 utf8_;
  bool begun_ = false;
  bool whole_ = false;
};

}  // namespace websocket
