#pragma once

#include <weir/weir.h>

#include <poll.h>

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <system_error>
#include <utility>

/// What a C library with an interface for other people's loops asks for: descriptors that are
/// watched, and one alarm. Belongs to one loop.
namespace adapters {

class Watched {
 public:
  /// `ready(fd, revents)`, with bits of poll(2), and `alarm()` are called in turns of the loop of
  /// their own, never from within `watch` or `wake_in`, and may call both.
  Watched(std::function<void(int, int)> ready, std::function<void()> alarm)
      : ready_(std::move(ready)), alarm_(std::move(alarm)) {}
  Watched(const Watched&) = delete;
  Watched& operator=(const Watched&) = delete;

  /// Watches for these events from now on, again and again; 0: not any more, the descriptor may be
  /// closed then.
  void watch(int fd, int events) {
    auto& [watched, tasks] = descriptors_[fd];
    if (events != 0 && watched == events) return;
    tasks.reset();  // if it runs, to its next suspension, which is a `yield`
    watched = events;
    if (events == 0) {
      descriptors_.erase(fd);
      return;
    }
    tasks = std::make_unique<weir::TaskGroup>();
    tasks->spawn(await(fd, events));
  }

  /// Sets the alarm anew; a negative delay: there is none.
  void wake_in(std::chrono::milliseconds delay) {
    alarm_at_.reset();
    if (delay.count() < 0) return;  // who sleeps finds nothing to do
    alarm_at_ = weir::EventLoop::current().now() + delay;
    if (sleeps_until_ <= *alarm_at_) return;  // looks then, and sleeps on
    sleeping_ = std::make_unique<weir::TaskGroup>();
    sleeping_->spawn(await_alarm());
  }
  /// Sets it only if it would be later, or there is none.
  void wake_within(std::chrono::milliseconds delay) {
    if (!alarm_at_ || *alarm_at_ > weir::EventLoop::current().now() + delay) wake_in(delay);
  }

 private:
  struct Descriptor {
    int events = 0;
    std::unique_ptr<weir::TaskGroup> tasks;
  };

  weir::Task<> await(int fd, int events) {
    for (;;) {
      co_await weir::yield();
      int revents = POLLERR;
      try {
        revents = co_await weir::ready(fd, events);
      } catch (const std::system_error&) {  // the library's call on it will tell
      }
      ready_(fd, revents);
    }
  }

  weir::Task<> await_alarm() {
    while (alarm_at_) {
      sleeps_until_ = *alarm_at_;
      co_await weir::sleep_until(sleeps_until_);
      co_await weir::yield();  // of a delay of 0 too: a turn of its own
      if (!alarm_at_ || *alarm_at_ > sleeps_until_) continue;
      alarm_at_.reset();
      alarm_();
    }
    sleeps_until_ = weir::TimePoint::max();
  }

  std::function<void(int, int)> ready_;
  std::function<void()> alarm_;
  std::map<int, Descriptor> descriptors_;
  std::optional<weir::TimePoint> alarm_at_;
  weir::TimePoint sleeps_until_ = weir::TimePoint::max();
  std::unique_ptr<weir::TaskGroup> sleeping_;
};

}  // namespace adapters
