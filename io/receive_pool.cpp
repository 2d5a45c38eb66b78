#include <weir/io/receive_pool.h>

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>

namespace weir::detail {
namespace {

// Buffers of a power of two would all begin in the same few sets of the caches: one line apart
// they do not.
constexpr std::size_t kLine = 64;

void* reserve(std::size_t bytes) {
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  return memory;
}

}  // namespace

ReceivePool::ReceivePool(std::size_t buffer_size, std::size_t most)
    : buffer_size_(buffer_size),
      stride_((buffer_size + kLine - 1) / kLine * kLine + kLine),
      most_(most),
      most_lent_(most / 2),
      data_(static_cast<std::byte*>(reserve(stride_ * most))) {
  try {
    headers_ = static_cast<Buffer*>(reserve(sizeof(Buffer) * most));
  } catch (...) {
    ::munmap(data_, stride_ * most_);
    throw;
  }
}

ReceivePool::~ReceivePool() {
  unpoison(data_, stride_ * most_);
  ::munmap(data_, stride_ * most_);
  ::munmap(headers_, sizeof(Buffer) * most_);
}

Buffer& ReceivePool::copy_out(std::uint32_t id, std::size_t used) noexcept {
  BufferRef own(lend(id));
  try {
    // One byte of room, unless the buffer was full: by that a stream sees that its buffers fill.
    BufferRef copy = make_buffer(used == buffer_size_ ? used : used + 1);
    std::memcpy(copy->data(), own->data(), used);
    return copy.detach();
  } catch (...) {
    return own.detach();
  }
}

std::size_t ReceivePool::grow(std::size_t count) noexcept {
  const std::size_t added = std::min(count, most_ - made_);
  for (std::size_t i = 0; i < added; ++i) {
    const auto id = static_cast<std::uint32_t>(made_++);
    new (header(id)) Buffer(*this, data_of(id), static_cast<std::uint32_t>(buffer_size_), id);
    poison(data_of(id), buffer_size_);
  }
  return added;
}

void ReceivePool::retire() noexcept {
  retired_ = true;
  go_with_last_lease();
}

bool FreeListPool::make_more() noexcept {
  const auto first = static_cast<std::uint32_t>(made());
  const std::size_t added = grow(std::max(kFirst, made()));
  for (auto id = static_cast<std::uint32_t>(first + added); id > first;) free_.push_back(--id);
  return added > 0;
}

}  // namespace weir::detail
