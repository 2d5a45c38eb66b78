#pragma once

#include <weir/core/event_loop.h>

#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace weir {

/// One `T` for each loop: a pool of connections, a cache, a counter that needs no lock. Made at
/// first use on a loop, by default or by a function, and destroyed on its loop at the loop's end,
/// after its tasks; one that the `LoopLocal` does not live to see lives until then too.
///
/// `get` is thread-safe, each loop's value that loop's alone.
template <class T>
class LoopLocal {
 public:
  LoopLocal()
    requires(std::is_default_constructible_v<T>)
      : LoopLocal([] { return T(); }) {}
  /// `make` is called on each loop that asks, which may be at the same time.
  explicit LoopLocal(std::function<T()> make)
      : values_(std::make_shared<Values>()), make_(std::move(make)) {}
  LoopLocal(const LoopLocal&) = delete;
  LoopLocal& operator=(const LoopLocal&) = delete;

  /// This loop's value. Throws what the making of it throws, and `std::logic_error` where no loop
  /// runs.
  T& get() {
    EventLoop& loop = EventLoop::current();
    if (Value* value = values_->find(loop)) return value->value;
    auto made = std::make_unique<Value>(loop, values_, make_);
    {
      const std::lock_guard lock(values_->mutex);
      values_->list.push_back(made.get());
    }
    loop.keep(*made);
    return made.release()->value;  // the loop ends it
  }

 private:
  struct Value;

  struct Values {
    Value* find(const EventLoop& loop) noexcept {
      const std::lock_guard lock(mutex);
      for (Value* value : list) {
        if (&value->loop == &loop) return value;
      }
      return nullptr;
    }

    std::mutex mutex;
    std::vector<Value*> list;
  };

  struct Value final : detail::LoopResource {
    Value(EventLoop& on, std::shared_ptr<Values> of, const std::function<T()>& make)
        : loop(on), values(std::move(of)), value(make()) {}

    void end_with_loop() noexcept override {
      {
        const std::lock_guard lock(values->mutex);
        std::erase(values->list, this);
      }
      const std::unique_ptr<Value> own(this);
    }

    EventLoop& loop;
    std::shared_ptr<Values> values;
    T value;
  };

  std::shared_ptr<Values> values_;
  std::function<T()> make_;
};

}  // namespace weir
