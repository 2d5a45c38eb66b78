#include <weir/net/tls/record_buffer.h>

#include <memory>
#include <utility>

namespace weir::detail {
namespace {

#ifdef WEIR_SANITIZED
constexpr int kMostFree = 0;  // so that a use after the end shows
#else
constexpr int kMostFree = 16;
#endif

class RecordBuffer final : public Buffer {
 public:
  RecordBuffer() : Buffer(owner(), bytes_, kRecordBuffer, 0) {}

  static BufferRef take() {
    Free& here = free_here();
    if (here.first == nullptr) return BufferRef(*new RecordBuffer);
    RecordBuffer& buffer = *std::exchange(here.first, here.first->next_);
    --here.count;
    return BufferRef(buffer);
  }

 private:
  struct Free {
    ~Free() {
      count = kMostFree;  // whoever comes later is not kept
      while (first != nullptr) delete std::exchange(first, first->next_);
    }
    RecordBuffer* first = nullptr;
    int count = 0;
  };
  struct Owner final : BufferOwner {
    void release(Buffer& buffer) noexcept override {
      auto* of = static_cast<RecordBuffer*>(&buffer);
      Free& here = free_here();
      if (here.count >= kMostFree) {
        delete of;
      } else {
        of->next_ = std::exchange(here.first, of);
        ++here.count;
      }
    }
  };

  static Free& free_here() noexcept {
    static constinit thread_local Free free;
    return free;
  }
  static Owner& owner() noexcept {
    static constinit Owner instance;
    return instance;
  }

  RecordBuffer* next_ = nullptr;
  std::byte bytes_[kRecordBuffer];
};

}  // namespace

BufferRef make_record_buffer(std::size_t capacity) {
  const bool own = capacity > kSmallBuffer && capacity <= kRecordBuffer;
  return own ? RecordBuffer::take() : make_buffer(capacity);
}

}  // namespace weir::detail
