#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

/// What the fuzz targets share: each takes its choices from the front of the input, and the rest is
/// what a peer sends.
namespace weir::fuzz {

/// A promise of the code under test. Libfuzzer keeps the input that breaks it.
inline void require(bool holds) {
  if (!holds) std::abort();
}

class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size)
      : rest_(reinterpret_cast<const char*>(data), size) {}

  std::uint8_t choice() {
    if (rest_.empty()) return 0;
    const auto value = static_cast<std::uint8_t>(rest_.front());
    rest_.remove_prefix(1);
    return value;
  }
  [[nodiscard]] std::string_view rest() const { return rest_; }

 private:
  std::string_view rest_;
};

/// Cuts text into pieces; `seed` says where, 0 not at all.
class Pieces {
 public:
  Pieces(std::string_view text, std::uint8_t seed) : text_(text), seed_(seed) {}

  [[nodiscard]] bool empty() const { return text_.empty(); }
  std::string_view next() {
    std::size_t size = text_.size();
    if (seed_ != 0) {
      state_ = state_ * 1103515245 + 12345 + seed_;
      size = 1 + (state_ >> 16) % (seed_ % 16 + 1);
    }
    const std::string_view piece = text_.substr(0, size);
    text_.remove_prefix(piece.size());
    return piece;
  }

 private:
  std::string_view text_;
  std::uint8_t seed_;
  std::uint32_t state_ = 1;
};

}  // namespace weir::fuzz
