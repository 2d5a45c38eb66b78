#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>

namespace resp {

using Time = std::chrono::steady_clock::time_point;

/// A value, or an item of one. Never changed, so that answers share it: it goes with the last of
/// them.
using Text = std::shared_ptr<const std::string>;
using List = std::deque<Text>;

struct Entry {
  std::variant<Text, List> value;
  std::optional<Time> deadline;
};

/// Keys, their values, and when they end. Not thread-safe, but for the end of a `Text`, which may
/// be anywhere. `bytes` is what keys and values take, by estimate, with those that only answers
/// still hold.
class Store {
 public:
  /// The store must outlive it.
  [[nodiscard]] Text make_text(std::string_view text) {
    struct Counted {
      Counted(std::string_view bytes, std::atomic<std::size_t>& total) : text(bytes), all(total) {
        all += text.size();
      }
      Counted(const Counted&) = delete;
      Counted& operator=(const Counted&) = delete;
      ~Counted() { all -= text.size(); }
      std::string text;
      std::atomic<std::size_t>& all;
    };
    auto counted = std::make_shared<Counted>(text, text_bytes_);
    const std::string* shown = &counted->text;
    return {std::move(counted), shown};
  }

  /// Drops what has ended by now: a bounded number at a time, so that no command waits long.
  void expire(Time now) {
    for (int most = 100; most > 0 && !deadlines_.empty(); --most) {
      const auto& [deadline, key] = *deadlines_.begin();
      if (deadline > now) return;
      erase(entries_.find(key));
    }
  }

  Entry* find(std::string_view key, Time now) {
    const auto found = entries_.find(key);
    if (found == entries_.end()) return nullptr;
    if (!found->second.deadline || *found->second.deadline > now) return &found->second;
    erase(found);
    return nullptr;
  }

  /// The key with a new value in place of whatever it was.
  Entry& put(std::string_view key, std::variant<Text, List> value) {
    if (const auto found = entries_.find(key); found != entries_.end()) {
      other_bytes_ -= items_of(found->second);
      set_deadline(key, found->second, std::nullopt);
      found->second.value = std::move(value);
      return found->second;
    }
    other_bytes_ += kPerEntry + key.size();
    return entries_.emplace(key, Entry{std::move(value), std::nullopt}).first->second;
  }

  void set_deadline(std::string_view key, Entry& entry, std::optional<Time> deadline) {
    forget_deadline(key, entry);
    if (!deadline) return;
    deadlines_.emplace(*deadline, key);
    other_bytes_ += kPerDeadline + key.size();
    entry.deadline = deadline;
  }

  bool erase(std::string_view key) {
    const auto found = entries_.find(key);
    if (found == entries_.end()) return false;
    erase(found);
    return true;
  }

  void push_front(List& list, std::string_view item) {
    list.push_front(make_text(item));
    other_bytes_ += kPerItem;
  }
  void pop_back(List& list) {
    list.pop_back();
    other_bytes_ -= kPerItem;
  }

  [[nodiscard]] std::size_t size() const { return entries_.size(); }
  [[nodiscard]] std::size_t bytes() const { return text_bytes_ + other_bytes_; }

 private:
  static constexpr std::size_t kPerEntry = 200;
  static constexpr std::size_t kPerItem = 64;
  static constexpr std::size_t kPerDeadline = 100;  // and the key, a second time

  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const {
      return std::hash<std::string_view>()(text);
    }
  };
  using Entries = std::unordered_map<std::string, Entry, Hash, std::equal_to<>>;

  static std::size_t items_of(const Entry& entry) {
    const auto* list = std::get_if<List>(&entry.value);
    return list == nullptr ? 0 : list->size() * kPerItem;
  }

  void forget_deadline(std::string_view key, Entry& entry) {
    if (!entry.deadline) return;
    deadlines_.erase({*entry.deadline, std::string(key)});
    other_bytes_ -= kPerDeadline + key.size();
    entry.deadline.reset();
  }

  void erase(Entries::iterator entry) {
    other_bytes_ -= kPerEntry + entry->first.size() + items_of(entry->second);
    forget_deadline(entry->first, entry->second);
    entries_.erase(entry);
  }

  std::atomic<std::size_t> text_bytes_ = 0;  // above what it counts
  std::size_t other_bytes_ = 0;
  Entries entries_;
  std::set<std::pair<Time, std::string>> deadlines_;
};

}  // namespace resp
