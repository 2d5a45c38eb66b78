#pragma once

#include <weir/coro/result.h>
#include <weir/net/stream/chunk.h>
#include <weir/net/stream/outbox.h>
#include <weir/net/stream/shared_bytes.h>

#include <cerrno>
#include <coroutine>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace weir::detail {

class [[nodiscard("co_await it")]] SendAwaiter {
 public:
  static constexpr char kWaitsFor[] = "send: above the mark";

  SendAwaiter(Outbox* to, const void* bytes, std::size_t count) noexcept
      : send(to, {}, static_cast<const std::byte*>(bytes), count) {}
  SendAwaiter(Outbox* to, Chunk&& chunk) noexcept : send(to, {}, chunk.data(), chunk.size()) {
    send.buffer = std::move(chunk).release_buffer();
  }
  /// A part of a file.
  SendAwaiter(Outbox* to, BufferRef file, std::size_t count) noexcept
      : send(to, std::move(file), nullptr, count) {}
  /// Moves only before it is awaited.
  SendAwaiter(SendAwaiter&& other) noexcept : send(std::move(other.send)) {}
  SendAwaiter& operator=(SendAwaiter&&) = delete;
  ~SendAwaiter() {
    if (send.tried) [[unlikely]] {
      end_send();
    } else {
      send.buffer.~BufferRef();  // it is in no list: that is all that there is
    }
  }

  [[gnu::always_inline]] bool await_ready() {
    if (send.outbox != nullptr && send.outbox->try_send_plain(send.buffer, send.data, send.bytes))
        [[likely]] {
      return true;
    }
    return try_send();
  }
  void await_suspend(std::coroutine_handle<> handle) {
    send.suspend(handle);
    if (send.outbox != nullptr) {
      send.outbox->wait(send);
    } else {
      send.wake();  // it is done, and others go first
    }
  }
  void await_resume() {
    if (!send.tried) [[likely]]
      return;
    if (const Failure failure = send.take_failure(); failure != 0) throw_failure(failure);
  }
  [[nodiscard]] Outcome<void> outcome() {
    return {code_of(send.tried ? send.take_failure() : 0), {}};
  }

 private:
  bool try_send();  // what is not plain; where false, it waits
  void end_send() noexcept;

  union {  // so that its end is ours
    Outbox::Send send;
  };
};

class [[nodiscard("co_await it")]] FlushAwaiter : private Outbox::Flush {
 public:
  static constexpr char kWaitsFor[] = "flush";

  /// `end`: a shutdown.
  FlushAwaiter(Outbox* of, bool end) noexcept : Flush(of) { shuts = end; }
  FlushAwaiter(FlushAwaiter&&) noexcept = default;

  bool await_ready() noexcept {
    if (outbox == nullptr) {
      failure = ENOTCONN;
      return true;
    }
    if (shuts) return outbox->try_end(*this);
    if (!outbox->try_flush(*this)) return false;
    if (failure != 0 || Scheduler::may_go_on()) return true;
    outbox = nullptr;  // nothing is to be waited for
    return false;
  }
  void await_suspend(std::coroutine_handle<> handle) {
    suspend(handle);
    if (outbox != nullptr) {
      outbox->wait(static_cast<Flush&>(*this));
    } else {
      wake();  // it is done, and others go first
    }
  }
  void await_resume() {
    if (const Failure told = take_failure(); told != 0) throw_failure(told);
  }
  [[nodiscard]] Outcome<void> outcome() { return {code_of(take_failure()), {}}; }
};

/// Bytes that were given away, as a lease that keeps them alive. Throws `std::bad_alloc`.
Chunk adopt(std::string&& bytes);
Chunk adopt(std::vector<std::byte>&& bytes);
Chunk adopt(SharedBytes&& bytes);
Chunk adopt(OtherMessage&& message);
/// The parts, copied one behind the other.
Chunk join(std::span<const std::string_view> parts);

}  // namespace weir::detail
