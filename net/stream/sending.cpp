#include <weir/coro/frame_allocator.h>
#include <weir/net/stream/sending.h>

#include <cstring>

namespace weir::detail {
namespace {

/// A buffer that keeps alive what the user gave away.
template <class Container>
class AdoptedBuffer final : public Buffer, public FrameAllocated {
 public:
  explicit AdoptedBuffer(Container&& bytes)
      : Buffer(owner(), nullptr, 0, 0), bytes_(std::move(bytes)) {}
  [[nodiscard]] const std::byte* bytes() const noexcept {
    return reinterpret_cast<const std::byte*>(bytes_.data());
  }

 private:
  struct Owner final : BufferOwner {
    void release(Buffer& buffer) noexcept override { delete static_cast<AdoptedBuffer*>(&buffer); }
  };
  static Owner& owner() noexcept {
    static constinit Owner instance;
    return instance;
  }

  Container bytes_;
};

template <class Container>
Chunk adopt_bytes(Container& bytes) {
  const std::size_t size = bytes.size();
  if (size == 0) return {};
  auto* adopted = new AdoptedBuffer<Container>(std::move(bytes));
  return Chunk(BufferRef(*adopted), adopted->bytes(), size);
}

}  // namespace

Chunk adopt(std::string&& bytes) { return adopt_bytes(bytes); }
Chunk adopt(std::vector<std::byte>&& bytes) { return adopt_bytes(bytes); }
Chunk adopt(SharedBytes&& bytes) { return adopt_bytes(bytes); }
Chunk adopt(OtherMessage&& message) {
  return message.shared.empty() ? adopt_bytes(message.text) : adopt_bytes(message.shared);
}

Chunk join(std::span<const std::string_view> parts) {
  std::size_t size = 0;
  for (const std::string_view part : parts) size += part.size();
  if (size == 0) return {};
  BufferRef whole = make_buffer(size);
  std::byte* to = whole->data();
  for (const std::string_view part : parts) {
    if (!part.empty()) std::memcpy(to, part.data(), part.size());
    to += part.size();
  }
  const std::byte* data = whole->data();
  return Chunk(std::move(whole), data, size);
}

bool SendAwaiter::try_send() {
  Outbox*& outbox = send.outbox;
  if (!send.buffer && outbox != nullptr && outbox->try_send_copy(send.data, send.bytes)) {
    return true;
  }
  send.tried = true;
  if (outbox == nullptr) {
    send.failure = ENOTCONN;
    return true;
  }
  if (!outbox->try_send(send)) return false;
  if (send.failure != 0 || Scheduler::may_go_on()) return true;
  outbox = nullptr;  // nothing is to be waited for
  return false;
}

void SendAwaiter::end_send() noexcept {
  if (send.waits()) send.outbox->drop(send);
  send.~Send();
}

}  // namespace weir::detail
