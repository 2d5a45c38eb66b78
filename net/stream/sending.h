#pragma once

#include <weir/coro/result.h>
#include <weir/net/stream/chunk.h>
#include <weir/net/stream/outbox.h>
#include <weir/net/stream/shared_bytes.h>

#include <cerrno>
#include <coroutine>
#include <cstddef>
#include <new>
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
      : message{{}, static_cast<const std::byte*>(bytes), count, to} {}
  SendAwaiter(Outbox* to, Chunk&& chunk) noexcept : message{{}, chunk.data(), chunk.size(), to} {
    message.buffer = std::move(chunk).release_buffer();
  }
  /// A part of a file.
  SendAwaiter(Outbox* to, BufferRef file, std::size_t count) noexcept
      : message{std::move(file), nullptr, count, to} {}
  /// Moves only before it is awaited.
  SendAwaiter(SendAwaiter&& other) noexcept : message(std::move(other.message)) {}
  SendAwaiter& operator=(SendAwaiter&&) = delete;
  ~SendAwaiter() {
    if (tried_) [[unlikely]] {
      end_send();
    } else {
      message.~Message();
    }
  }

  [[gnu::always_inline]] bool await_ready() {
    if (message.outbox != nullptr &&
        message.outbox->try_send_plain(message.buffer, message.data, message.size)) [[likely]] {
      return true;
    }
    return try_send();
  }
  void await_suspend(std::coroutine_handle<> handle) {
    waiting.suspend(handle);
    if (waiting.outbox != nullptr) {
      waiting.outbox->wait(waiting);
    } else {
      waiting.wake();  // it is done, and others go first
    }
  }
  void await_resume() {
    if (!tried_) [[likely]]
      return;
    if (const Failure failure = waiting.take_failure(); failure != 0) throw_failure(failure);
  }
  [[nodiscard]] Outcome<void> outcome() {
    return {code_of(tried_ ? waiting.take_failure() : 0), {}};
  }

 private:
  struct Message {
    BufferRef buffer;
    const std::byte* data;
    std::size_t size;
    Outbox* outbox;
  };

  bool try_send();  // makes the message a send that can wait
  void end_send() noexcept;

  union {
    Message message;
    Outbox::Send waiting;  // once `tried_`
  };
  bool tried_ = false;
};

class [[nodiscard("co_await it")]] FlushAwaiter : private Outbox::Flush {
 public:
  static constexpr char kWaitsFor[] = "flush";

  /// `end`: a shutdown.
  FlushAwaiter(Outbox* of, bool end) noexcept : Flush(of), end_(end) {}
  FlushAwaiter(FlushAwaiter&&) noexcept = default;

  bool await_ready() noexcept {
    if (outbox == nullptr) {
      failure = ENOTCONN;
      return true;
    }
    if (end_) return outbox->try_end(*this);
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

 private:
  bool end_;
};

/// Bytes that were given away, as a lease that keeps them alive. Throws `std::bad_alloc`.
Chunk adopt(std::string&& bytes);
Chunk adopt(std::vector<std::byte>&& bytes);
Chunk adopt(SharedBytes&& bytes);
/// The parts, copied one behind the other.
Chunk join(std::span<const std::string_view> parts);

}  // namespace weir::detail
