#pragma once

#include <weir/net/sender_core.h>

#include <concepts>
#include <memory>
#include <new>
#include <string>
#include <system_error>
#include <utility>

namespace weir {

/// Sends on a connection, or ends it, from any thread. Copyable; keeps neither the connection nor
/// its loop alive. Messages leave whole, and in the order in which they were accepted, whichever
/// threads they are of, the connection's own `send` included: what is sent under a mutex by many
/// threads comes in one order, and what is sent after that, last.
class Sender {
 public:
  class [[nodiscard("co_await it")]] SendAwaiter {
   public:
    static constexpr char kWaitsFor[] = "Sender::send: above the mark";

    SendAwaiter(std::shared_ptr<detail::SenderCore> core, detail::OtherMessage&& message)
        : core_(std::move(core)) {
      node_.message = std::move(message);
    }
    SendAwaiter(SendAwaiter&& other) noexcept : core_(std::move(other.core_)) {
      node_.message = std::move(other.node_.message);
    }
    ~SendAwaiter() {
      if (node_.waiter.scheduler() != nullptr) core_->forget(node_);
    }

    static constexpr bool await_ready() noexcept { return false; }
    bool await_suspend(std::coroutine_handle<> handle) {
      return core_ != nullptr && !core_->send_or_wait(node_, handle);
    }
    void await_resume() {
      if (node_.out_of_memory) throw std::bad_alloc();
      if (!node_.sent) {
        throw std::system_error(std::make_error_code(std::errc::broken_pipe), "weir: Sender::send");
      }
    }

   private:
    std::shared_ptr<detail::SenderCore> core_;
    detail::SenderCore::Node node_;
  };

  Sender() noexcept = default;
  explicit Sender(std::shared_ptr<detail::SenderCore> core) noexcept : core_(std::move(core)) {}

  /// Never waits: false if the connection is closed, or its queue at or above the high mark. True
  /// means queued, not received: the connection may break before.
  bool try_send(std::string message) const {
    return core_ != nullptr && core_->try_send(std::move(message));
  }
  /// The same of bytes that are kept, without a copy, until the kernel has them. A template, so
  /// that `try_send({})` is the other.
  template <std::same_as<SharedBytes> Bytes>
  bool try_send(Bytes bytes) const {
    return core_ != nullptr && core_->try_send(std::move(bytes));
  }

  /// `co_await send(message)`, on any loop: waits until the queue is down to the low mark if it is
  /// at or above the high one. Throws `std::errc::broken_pipe` once the connection is closed.
  /// Dropping it while it waits sends nothing.
  SendAwaiter send(std::string message) const { return SendAwaiter(core_, std::move(message)); }
  template <std::same_as<SharedBytes> Bytes>
  SendAwaiter send(Bytes bytes) const {
    return SendAwaiter(core_, std::move(bytes));
  }

  /// Ends the connection from any thread, in a turn of its loop, as `TcpConnection::close` and
  /// `force_close` do: its handler's reads and sends resume with `std::errc::operation_canceled`.
  /// What this thread has sent before goes out first; `force_close` loses it. Neither does anything
  /// once the connection has gone.
  void close() const {
    if (core_ != nullptr) core_->end(false);
  }
  void force_close() const {
    if (core_ != nullptr) core_->end(true);
  }

  /// False once the connection is closed or breaks.
  [[nodiscard]] bool open() const { return core_ != nullptr && core_->open(); }

 private:
  std::shared_ptr<detail::SenderCore> core_;
};

}  // namespace weir
