#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <string_view>

/// The frames that a storm sends, and who checks them at the other end.
namespace weir::test::storm {

/// Numbers by seed (SplitMix64); a child of it goes its own way.
class Dice {
 public:
  explicit Dice(std::uint64_t seed) noexcept : state_(seed) {}
  std::uint64_t next() noexcept {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  /// 0 to `count` - 1.
  std::uint32_t below(std::uint32_t count) noexcept {
    return static_cast<std::uint32_t>((next() >> 32) * count >> 32);
  }
  bool one_in(std::uint32_t count) noexcept { return below(count) == 0; }
  Dice child() noexcept { return Dice(next()); }
  /// Mostly small, at times what crosses marks and buffers, seldom what fills pipes.
  std::uint32_t size() noexcept {
    if (one_in(40)) return below(400'000);
    if (one_in(6)) return below(20'000);
    return below(300);
  }

 private:
  std::uint64_t state_;
};

/// Stands before the bytes of a frame.
struct Header {
  static constexpr std::uint32_t kMagic = 0x52494557;

  std::uint32_t magic;
  std::uint32_t size;    // of what follows
  std::uint32_t source;  // who sent it, of those on one side of a connection
  std::uint32_t number;  // grows from frame to frame of a source
};

inline char byte_of(const Header& header, std::size_t at) noexcept {
  return static_cast<char>(at * 7 + header.source * 31 + header.number * 131);
}

inline std::string frame(std::uint32_t source, std::uint32_t number, std::uint32_t size) {
  const Header header{Header::kMagic, size, source, number};
  std::string bytes(sizeof header + size, '\0');
  std::memcpy(bytes.data(), &header, sizeof header);
  for (std::size_t i = 0; i < size; ++i) bytes[sizeof header + i] = byte_of(header, i);
  return bytes;
}

/// The source of a peer that is going to break off in the middle of a frame.
inline constexpr std::uint32_t kLiar = 0xffffffff;

/// Takes in one direction of a connection, in whatever pieces.
class Checker {
 public:
  /// What is wrong with the bytes; empty: nothing.
  const std::string& feed(std::string_view bytes) {
    while (!bytes.empty() && wrong_.empty()) {
      if (have_ < sizeof header_) {
        const std::size_t part = std::min(bytes.size(), sizeof header_ - have_);
        std::memcpy(reinterpret_cast<char*>(&header_) + have_, bytes.data(), part);
        have_ += part;
        bytes.remove_prefix(part);
        if (have_ == sizeof header_) begin();
      } else {
        const std::size_t part = std::min(bytes.size(), header_.size - at_);
        for (std::size_t i = 0; i < part; ++i) {
          if (bytes[i] != byte_of(header_, at_ + i)) return wrong("a byte of a frame");
        }
        at_ += part;
        bytes.remove_prefix(part);
      }
      if (have_ == sizeof header_ && at_ == header_.size) end();
    }
    return wrong_;
  }

  /// At a clean end of the stream: whether it may end here.
  [[nodiscard]] bool may_end() const noexcept { return liar_ || have_ == 0; }
  [[nodiscard]] std::uint64_t frames() const noexcept { return frames_; }

 private:
  void begin() {
    at_ = 0;
    if (header_.magic != Header::kMagic || header_.size > 1 << 20) {
      (void)wrong("a header");
      return;
    }
    const auto [last, first] = last_.try_emplace(header_.source, header_.number);
    if (!first && header_.number <= last->second) (void)wrong("the order of frames");
    last->second = header_.number;
  }
  void end() {
    have_ = 0;
    ++frames_;
    liar_ = liar_ || header_.source == kLiar;
  }
  const std::string& wrong(const char* what) {
    wrong_ = std::string(what) + " is wrong: source " + std::to_string(header_.source) +
             ", number " + std::to_string(header_.number) + ", size " +
             std::to_string(header_.size) + ", at " + std::to_string(at_) + ", after " +
             std::to_string(frames_) + " frames";
    return wrong_;
  }

  Header header_{};
  std::size_t have_ = 0;  // bytes of the header
  std::size_t at_ = 0;    // bytes of what follows it
  std::uint64_t frames_ = 0;
  bool liar_ = false;
  std::map<std::uint32_t, std::uint32_t> last_;
  std::string wrong_;
};

}  // namespace weir::test::storm
