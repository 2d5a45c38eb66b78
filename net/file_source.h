#pragma once

#include <weir/core/buffer.h>
#include <weir/coro/frame_allocator.h>

#include <cstdint>

namespace weir::detail {

/// A file from which a segment is sent: a buffer without bytes, so that it lives as long as a
/// segment refers to it. Owns its descriptor.
class FileSource final : public Buffer, public FrameAllocated {
 public:
  ~FileSource();

  /// With a duplicate of the descriptor, since the caller may close its own meanwhile. Throws
  /// `std::system_error`.
  static BufferRef open(int file, std::uint64_t offset);

  [[nodiscard]] static FileSource& of(const BufferRef& buffer) noexcept {
    return static_cast<FileSource&>(*buffer);
  }

  const int file;
  std::uint64_t offset;  // of the first byte that has not gone

 private:
  struct Owner;

  FileSource(BufferOwner& owner, int fd, std::uint64_t from) noexcept
      : Buffer(owner, nullptr, 0, 0), file(fd), offset(from) {}
};

}  // namespace weir::detail
