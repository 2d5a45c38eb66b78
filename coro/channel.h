#pragma once

#include <weir/coro/scheduler.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <utility>

namespace weir {

/// A bounded FIFO between coroutines, on one loop or across loops, and plain threads
/// (`try_send`, `try_receive`, `close`). Thread-safe; each waiter is resumed on its own loop.
/// Destroying the channel closes it.
///
/// Nothing is lost by a drop: an item handed to a `receive` that was dropped goes to the next one,
/// in its old place; a dropped `send` has either sent its item or not.
template <class T>
class Channel {
  struct State;

  /// A waiting `send` or `receive`. In the state's list, guarded by the mutex, until it is settled;
  /// then in its own loop's ready queue.
  struct Node : Link {
    Waiter waiter;
    std::optional<T> item;     // of a send: until it is taken; of a receive: once it is given
    std::uint64_t number = 0;  // of a receive: the item's place in the order of all
    bool settled = false;
    bool sent = false;
  };

 public:
  class [[nodiscard("co_await it")]] SendAwaiter {
   public:
    SendAwaiter(Channel& channel, T item) : state_(channel.state_) {
      node_.item.emplace(std::move(item));
    }
    SendAwaiter(SendAwaiter&& other) noexcept : state_(other.state_) {
      node_.item = std::move(other.node_.item);
    }
    ~SendAwaiter() {
      if (node_.waiter.scheduler() != nullptr) state_->forget(node_);
    }

    bool await_ready() {
      const std::lock_guard lock(state_->mutex);
      return state_->send_now(node_);
    }
    bool await_suspend(std::coroutine_handle<> handle) {
      const std::lock_guard lock(state_->mutex);
      if (state_->send_now(node_)) return false;
      node_.waiter.suspend(handle);
      state_->senders.push_back(node_);
      return true;
    }
    /// False if the channel was closed before the item was taken.
    bool await_resume() const noexcept { return node_.sent; }

   private:
    std::shared_ptr<State> state_;
    Node node_;
  };

  class [[nodiscard("co_await it")]] ReceiveAwaiter {
   public:
    explicit ReceiveAwaiter(Channel& channel) : state_(channel.state_) {}
    ReceiveAwaiter(ReceiveAwaiter&& other) noexcept : state_(other.state_) {}
    ~ReceiveAwaiter() {
      if (node_.waiter.scheduler() != nullptr) state_->forget_receiver(node_);
    }

    bool await_ready() {
      const std::lock_guard lock(state_->mutex);
      return state_->receive_now(node_);
    }
    bool await_suspend(std::coroutine_handle<> handle) {
      const std::lock_guard lock(state_->mutex);
      if (state_->receive_now(node_)) return false;
      node_.waiter.suspend(handle);
      state_->receivers.push_back(node_);
      return true;
    }
    /// `std::nullopt` once the channel is closed and empty.
    std::optional<T> await_resume() { return std::exchange(node_.item, std::nullopt); }

   private:
    std::shared_ptr<State> state_;
    Node node_;
  };

  /// Throws `std::invalid_argument` for a capacity of zero.
  explicit Channel(std::size_t capacity) : state_(std::make_shared<State>(capacity)) {
    if (capacity == 0) throw std::invalid_argument("weir: Channel: capacity 0 holds nothing");
  }
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;
  ~Channel() { close(); }

  /// `co_await send(item)` waits for room; true once the item is in the channel, false once the
  /// channel is closed.
  SendAwaiter send(T item) { return SendAwaiter(*this, std::move(item)); }

  /// `co_await receive()` waits for an item; `std::nullopt` once closed and empty.
  ReceiveAwaiter receive() { return ReceiveAwaiter(*this); }

  /// False if the channel is full or closed; the item is then as it was.
  bool try_send(T&& item) {
    Node node;
    node.item.emplace(std::move(item));
    const std::lock_guard lock(state_->mutex);
    if (state_->send_now(node) && node.sent) return true;
    item = std::move(*node.item);
    return false;
  }
  bool try_send(const T& item)
    requires std::is_copy_constructible_v<T>
  {
    return try_send(T(item));
  }

  /// An item that is there now.
  std::optional<T> try_receive() {
    Node node;
    const std::lock_guard lock(state_->mutex);
    (void)state_->receive_now(node);
    return std::move(node.item);
  }

  /// No more items go in: waiting sends give false, receives the rest, then `std::nullopt`.
  void close() {
    const std::lock_guard lock(state_->mutex);
    if (std::exchange(state_->closed, true)) return;
    while (Node* sender = state_->senders.front()) state_->settle(*sender);
    while (Node* receiver = state_->receivers.front()) state_->settle(*receiver);
  }

  [[nodiscard]] bool closed() const {
    const std::lock_guard lock(state_->mutex);
    return state_->closed;
  }
  [[nodiscard]] std::size_t size() const {
    const std::lock_guard lock(state_->mutex);
    return state_->items.size();
  }
  [[nodiscard]] std::size_t capacity() const noexcept { return state_->capacity; }

 private:
  /// Shared with the wake-ups under way to other loops. Every member with the mutex held.
  struct State : std::enable_shared_from_this<State> {
    explicit State(std::size_t most) : capacity(most) {}

    bool send_now(Node& node) {
      if (closed) return true;
      if (!senders.empty()) return false;
      return put(node);
    }

    bool put(Node& node) {
      if (Node* receiver = receivers.front()) {
        receiver->item = std::move(node.item);
        receiver->number = next_number++;
        settle(*receiver);
      } else if (items.size() < capacity) {
        items.push_back({next_number, std::move(*node.item)});
        ++next_number;
      } else {
        return false;
      }
      return node.sent = true;
    }

    bool receive_now(Node& node) {
      if (items.empty()) return closed;
      node.item.emplace(std::move(items.front().item));
      items.pop_front();
      refill();
      return true;
    }

    void refill() {
      while (Node* sender = senders.front()) {
        if (!put(*sender)) return;
        settle(*sender);
      }
    }

    /// Resumes the node's coroutine, on its own loop.
    void settle(Node& node) {
      node.settled = true;
      Scheduler& home = *node.waiter.scheduler();
      if (Scheduler::current_or_null() == &home) {
        node.unlink();
        node.waiter.wake();
        return;
      }
      // The node stays ours until its loop has taken it over: it may be dropped before.
      waking.push_back(node);
      home.post_function([state = this->shared_from_this()] { state->wake_here(); });
    }

    void wake_here() {
      const std::lock_guard lock(mutex);
      Scheduler* here = Scheduler::current_or_null();
      for (Node* node = waking.front(); node != nullptr;) {
        Node* next = waking.after(*node);
        if (node->waiter.scheduler() == here) {
          node->unlink();
          node->waiter.wake();
        }
        node = next;
      }
    }

    void forget(Node& node) {
      const std::lock_guard lock(mutex);
      node.unlink();
    }

    void forget_receiver(Node& node) {
      const std::lock_guard lock(mutex);
      node.unlink();
      if (!node.item.has_value()) return;
      if (Node* receiver = receivers.front()) {
        receiver->item = std::move(node.item);
        receiver->number = node.number;
        settle(*receiver);
        return;
      }
      // Before all that came after it: several may come back, in any order.
      auto place = items.begin();
      while (place != items.end() && place->number < node.number) ++place;
      items.insert(place, {node.number, std::move(*node.item)});
    }

    struct Item {
      std::uint64_t number;
      T item;
    };

    mutable std::mutex mutex;
    std::deque<Item> items;
    std::uint64_t next_number = 0;
    List<Node> senders;
    List<Node> receivers;
    List<Node> waking;
    const std::size_t capacity;
    bool closed = false;
  };

  std::shared_ptr<State> state_;
};

}  // namespace weir
