#pragma once

#include <weir/coro/frame_allocator.h>
#include <weir/coro/scheduler.h>

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <utility>

namespace weir {

/// A bounded FIFO between coroutines, on one loop or across loops, and plain threads
/// (`try_send`, `try_receive`, `blocking_send`, `blocking_receive`, `close`). Thread-safe; each
/// waiter is resumed on its own loop. Destroying the channel closes it.
///
/// Nothing is lost by a drop: an item handed to a `receive` that was dropped goes to the next one,
/// in its old place; a dropped `send` has either sent its item or not.
template <class T>
class Channel {
  struct State;

  struct Nothing {};
  /// An item on its way, made before anything else changes, so that what may fail fails first.
  struct Item : std::conditional_t<(alignof(T) <= 16), detail::RecycledAllocated, Nothing> {
    template <class... Args>
    explicit Item(std::in_place_t, Args&&... args) : value(std::forward<Args>(args)...) {}

    detail::Link link;

    std::uint64_t number = 0;  // its place in the order of all, once it was sent
    T value;
  };
  using ItemPointer = std::unique_ptr<Item>;

  /// A thread without a loop, that waits.
  struct Thread {
    std::condition_variable changed;
    bool settled = false;
  };
  /// A waiting `send` or `receive`. In the state's list, guarded by the mutex, until it is settled;
  /// then in the care of its own loop or thread.
  struct Node {
    detail::Link link;
    detail::Waiter waiter;
    Thread* thread = nullptr;  // instead of the waiter
    ItemPointer item;          // of a send: until it is taken; of a receive: once it is given
    bool sent = false;
  };

 public:
  class [[nodiscard("co_await it")]] SendAwaiter {
   public:
    static constexpr char kWaitsFor[] = "Channel::send: it is full";

    SendAwaiter(Channel& channel, ItemPointer item) : state_(channel.state_) {
      node_.item = std::move(item);
    }
    SendAwaiter(SendAwaiter&& other) noexcept : state_(other.state_) {
      node_.item = std::move(other.node_.item);
    }
    ~SendAwaiter() {
      if (node_.waiter.scheduler() != nullptr) state_->forget(node_);
    }

    bool await_ready() {
      if (!detail::Scheduler::may_go_on()) return false;
      const std::lock_guard lock(state_->mutex);
      return state_->send_now(node_);
    }
    void await_suspend(std::coroutine_handle<> handle) {
      const std::lock_guard lock(state_->mutex);
      node_.waiter.suspend(handle);
      if (state_->send_now(node_)) {
        node_.waiter.wake();
      } else {
        state_->senders.push_back(node_);
      }
    }
    /// False if the channel was closed before the item was taken.
    bool await_resume() const noexcept { return node_.sent; }

   private:
    std::shared_ptr<State> state_;
    Node node_;
  };

  class [[nodiscard("co_await it")]] ReceiveAwaiter {
   public:
    static constexpr char kWaitsFor[] = "Channel::receive: it is empty";

    explicit ReceiveAwaiter(Channel& channel) : state_(channel.state_) {}
    ReceiveAwaiter(ReceiveAwaiter&& other) noexcept : state_(std::move(other.state_)) {}
    ~ReceiveAwaiter() {
      if (node_.waiter.scheduler() != nullptr) state_->forget_receiver(node_);
    }

    bool await_ready() {
      if (!detail::Scheduler::may_go_on()) return false;
      const std::lock_guard lock(state_->mutex);
      return state_->receive_now(node_);
    }
    void await_suspend(std::coroutine_handle<> handle) {
      const std::lock_guard lock(state_->mutex);
      node_.waiter.suspend(handle);
      if (state_->receive_now(node_)) {
        node_.waiter.wake();
      } else {
        state_->receivers.push_back(node_);
      }
    }
    /// `std::nullopt` once the channel is closed and empty.
    std::optional<T> await_resume() {
      if (node_.item == nullptr) {  // closed; since then one that was dropped may have given back
        const std::lock_guard lock(state_->mutex);
        (void)state_->receive_now(node_);
      }
      const ItemPointer item = std::move(node_.item);
      return item == nullptr ? std::optional<T>() : std::optional<T>(std::move(item->value));
    }

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
  SendAwaiter send(T item) { return emplace(std::move(item)); }

  /// The same with an item made of these arguments. GCC 12 destroys a temporary aggregate inside a
  /// `co_await` twice: `co_await channel.emplace(id, std::move(text))` needs none.
  template <class... Args>
    requires std::is_constructible_v<T, Args&&...>
  SendAwaiter emplace(Args&&... args) {
    return SendAwaiter(*this, make_item(std::forward<Args>(args)...));
  }

  /// `co_await receive()` waits for an item; `std::nullopt` once closed and empty.
  ReceiveAwaiter receive() { return ReceiveAwaiter(*this); }

  /// False if the channel is full or closed; the item is then as it was, as it is if this throws.
  bool try_send(T&& item) {
    Node node;
    node.item = make_item(std::move(item));
    {
      const std::lock_guard lock(state_->mutex);
      if (state_->send_now(node) && node.sent) return true;
    }
    item = std::move(node.item->value);
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
    {
      const std::lock_guard lock(state_->mutex);
      (void)state_->receive_now(node);
    }
    if (node.item == nullptr) return std::nullopt;
    return std::optional<T>(std::move(node.item->value));
  }

  /// For threads without a loop: waits for room; false once the channel is closed. Where a loop
  /// runs on this thread and it would have to wait it throws `std::logic_error`.
  bool blocking_send(T item) {
    const std::shared_ptr<State> state = state_;
    Node node;
    node.item = make_item(std::move(item));
    std::unique_lock lock(state->mutex);
    if (!state->send_now(node)) state->block(lock, state->senders, node);
    return node.sent;
  }

  /// The same for an item; `std::nullopt` once closed and empty.
  std::optional<T> blocking_receive() {
    const std::shared_ptr<State> state = state_;
    Node node;
    {
      std::unique_lock lock(state->mutex);
      if (!state->receive_now(node)) {
        state->block(lock, state->receivers, node);
        // Closed; since then one that was dropped may have given back.
        if (node.item == nullptr) (void)state->receive_now(node);
      }
    }
    if (node.item == nullptr) return std::nullopt;
    return std::optional<T>(std::move(node.item->value));
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
    return state_->size;
  }
  [[nodiscard]] std::size_t capacity() const noexcept { return state_->capacity; }

 private:
  template <class... Args>
  static ItemPointer make_item(Args&&... args) {
    return std::make_unique<Item>(std::in_place, std::forward<Args>(args)...);
  }

  /// Outlives the channel as long as somebody waits. Every member with the mutex held; none of them
  /// allocates or fails.
  struct State {
    explicit State(std::size_t most) : capacity(most) {}
    State(const State&) = delete;
    State& operator=(const State&) = delete;
    ~State() {
      while (Item* item = items.pop_front()) delete item;
    }

    bool send_now(Node& node) noexcept {
      if (closed) return true;
      if (!senders.empty()) return false;
      return put(node);
    }

    bool put(Node& node) noexcept {
      if (Node* receiver = receivers.front()) {
        node.item->number = next_number++;
        receiver->item = std::move(node.item);
        settle(*receiver);
      } else if (size < capacity) {
        node.item->number = next_number++;
        items.push_back(*node.item.release());
        ++size;
      } else {
        return false;
      }
      return node.sent = true;
    }

    bool receive_now(Node& node) noexcept {
      if (items.empty()) return closed;
      node.item.reset(items.pop_front());
      --size;
      while (Node* sender = senders.front()) {
        if (!put(*sender)) break;
        settle(*sender);
      }
      return true;
    }

    /// Resumes the node's coroutine, on its own loop, or its thread.
    void settle(Node& node) noexcept {
      node.link.unlink();
      if (node.thread == nullptr) {
        node.waiter.wake_from_anywhere();
      } else {
        node.thread->settled = true;
        node.thread->changed.notify_one();
      }
    }

    /// Has the thread wait in a list until the node is settled.
    void block(std::unique_lock<std::mutex>& lock, detail::List<Node>& list, Node& node) {
      if (detail::Scheduler::current_or_null() != nullptr) {
        throw std::logic_error(
            "weir: Channel: blocking_send and blocking_receive would hold up the loop of this "
            "thread; co_await send or receive there");
      }
      Thread thread;
      node.thread = &thread;
      list.push_back(node);
      thread.changed.wait(lock, [&thread] { return thread.settled; });
    }

    void forget(Node& node) noexcept {
      const std::lock_guard lock(mutex);
      node.link.unlink();
      node.waiter.forget_wake();
    }

    void forget_receiver(Node& node) noexcept {
      const std::lock_guard lock(mutex);
      node.link.unlink();
      node.waiter.forget_wake();
      if (node.item == nullptr) return;
      if (Node* receiver = receivers.front()) {
        receiver->item = std::move(node.item);
        settle(*receiver);
        return;
      }
      // Before all that came after it: several may come back, in any order.
      Item* after = items.front();
      while (after != nullptr && after->number < node.item->number) after = items.after(*after);
      items.insert_before(after, *node.item.release());
      ++size;
    }

    mutable std::mutex mutex;
    detail::List<Item> items;
    std::size_t size = 0;  // of `items`
    std::uint64_t next_number = 0;
    detail::List<Node> senders;
    detail::List<Node> receivers;
    const std::size_t capacity;
    bool closed = false;
  };

  std::shared_ptr<State> state_;
};

}  // namespace weir
