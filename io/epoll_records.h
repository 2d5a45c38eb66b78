#pragma once

#include <weir/core/engine.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

// Of the epoll engine.
namespace weir::detail {

/// What the engine knows of one descriptor.
///
/// Nobody tells it of a close: another loop may close a descriptor, and yet another may get its
/// number. So the record holds only as long as an operation is in flight, which forbids a close.
struct PolledDescriptor {
  List<Operation> parked;     // wait for an event
  std::uint32_t users = 0;    // operations in flight
  bool watched = false;       // epoll has it
  bool dry = false;           // everything was read; an event will say when there is more
  bool more_behind = false;   // read to the end, whatever a short read seems to say
  bool gives_pieces = false;  // a short read says nothing: the peer's pieces are kept apart

  void forget() noexcept { watched = dry = more_behind = gives_pieces = false; }
};

/// The records by descriptor. They stay where they are.
class PolledDescriptors {
 public:
  [[nodiscard]] PolledDescriptor* find(int fd) const noexcept {
    const std::size_t chunk = static_cast<std::size_t>(fd) / kChunk;
    if (chunk >= chunks_.size() || chunks_[chunk] == nullptr) return nullptr;
    return &(*chunks_[chunk])[static_cast<std::size_t>(fd) % kChunk];
  }

  /// nullptr where there is no memory.
  [[nodiscard]] PolledDescriptor* find_or_make(int fd) noexcept {
    if (PolledDescriptor* record = find(fd)) return record;
    const std::size_t chunk = static_cast<std::size_t>(fd) / kChunk;
    try {
      if (chunk >= chunks_.size()) chunks_.resize(chunk + 1);
      chunks_[chunk] = std::make_unique<Chunk>();
    } catch (...) {
      return nullptr;
    }
    return find(fd);
  }

  template <class Function>
  void for_each(Function function) {
    for (const auto& chunk : chunks_) {
      if (chunk == nullptr) continue;
      for (PolledDescriptor& record : *chunk) function(record);
    }
  }

 private:
  static constexpr std::size_t kChunk = 256;
  using Chunk = std::array<PolledDescriptor, kChunk>;

  std::vector<std::unique_ptr<Chunk>> chunks_;
};

}  // namespace weir::detail
