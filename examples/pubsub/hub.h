#pragma once

#include <weir/weir.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <new>
#include <set>
#include <string>
#include <string_view>
#include <utility>

namespace pubsub {

class Hub;

/// One connection. Its subscriptions end with it.
class Subscriber {
 public:
  Subscriber(Hub& hub, weir::Sender sender) : hub_(hub), sender_(std::move(sender)) {}
  Subscriber(const Subscriber&) = delete;
  Subscriber& operator=(const Subscriber&) = delete;
  ~Subscriber();

 private:
  friend class Hub;

  /// False if there is no room, or no memory, for it. The next one for which there is has the
  /// number of those that were lost before it.
  bool give(const weir::SharedBytes& message) {
    try {
      if (lost_ > 0 && !sender_.try_send("LOST " + std::to_string(lost_) + "\r\n")) {
        ++lost_;
        return false;
      }
      lost_ = 0;
      if (sender_.try_send(message)) return true;
    } catch (const std::bad_alloc&) {  // the others get it
    }
    ++lost_;
    return false;
  }

  Hub& hub_;
  weir::Sender sender_;
  std::set<std::string, std::less<>> topics_;  // the hub's mutex guards these
  std::uint64_t lost_ = 0;
};

/// Who wants what. Used from every loop: its mutex is never held across a `co_await`, and sending
/// under it does not wait, so that all get the messages of all topics in one order.
class Hub {
 public:
  static constexpr std::size_t kMostTopics = 1000;  // of one subscriber

  /// False if it has too many.
  bool subscribe(Subscriber& subscriber, std::string_view topic) {
    const std::lock_guard lock(mutex_);
    if (subscriber.topics_.size() >= kMostTopics && !subscriber.topics_.contains(topic)) {
      return false;
    }
    subscriber.topics_.emplace(topic);  // first: by these it leaves
    topics_[std::string(topic)].insert(&subscriber);
    return true;
  }

  void unsubscribe(Subscriber& subscriber, std::string_view topic) {
    const std::lock_guard lock(mutex_);
    leave(subscriber, topic);
    if (const auto own = subscriber.topics_.find(topic); own != subscriber.topics_.end()) {
      subscriber.topics_.erase(own);
    }
  }

  void unsubscribe_all(Subscriber& subscriber) {
    const std::lock_guard lock(mutex_);
    for (const std::string& topic : subscriber.topics_) leave(subscriber, topic);
  }

  /// Gives how many got it.
  std::size_t publish(std::string_view topic, std::string_view text) {
    std::string line("MSG ");
    line.append(topic).append(" ").append(text).append("\r\n");
    const weir::SharedBytes message(std::move(line));  // once, however many there are
    const std::lock_guard lock(mutex_);
    told_ += message.size();
    const auto found = topics_.find(topic);
    if (found == topics_.end()) return 0;
    std::size_t count = 0;
    for (Subscriber* subscriber : found->second) count += subscriber->give(message) ? 1 : 0;
    return count;
  }

  /// How many bytes were published by now.
  [[nodiscard]] std::size_t told() {
    const std::lock_guard lock(mutex_);
    return told_;
  }

 private:
  void leave(Subscriber& subscriber, std::string_view topic) {
    const auto found = topics_.find(topic);
    if (found == topics_.end()) return;
    found->second.erase(&subscriber);
    if (found->second.empty()) topics_.erase(found);
  }

  std::mutex mutex_;
  std::map<std::string, std::set<Subscriber*>, std::less<>> topics_;  // with one at least
  std::size_t told_ = 0;
};

inline Subscriber::~Subscriber() { hub_.unsubscribe_all(*this); }

}  // namespace pubsub
