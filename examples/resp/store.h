#pragma once

#include <chrono>
#include <cstddef>
#include <deque>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>

namespace resp {

using Time = std::chrono::steady_clock::time_point;
using List = std::deque<std::string>;

struct Entry {
  std::variant<std::string, List> value;
  std::optional<Time> deadline;
};

/// Keys, their values, and when they end. Not thread-safe. `bytes` is what keys and values take, by
/// estimate; whoever puts something in tells it by `charge`.
class Store {
 public:
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
  Entry& put(std::string_view key, std::variant<std::string, List> value) {
    charge(size_of(value));
    if (const auto found = entries_.find(key); found != entries_.end()) {
      refund(size_of(found->second.value));
      set_deadline(key, found->second, std::nullopt);
      found->second.value = std::move(value);
      return found->second;
    }
    charge(kPerEntry + key.size());
    return entries_.emplace(key, Entry{std::move(value), std::nullopt}).first->second;
  }

  void set_deadline(std::string_view key, Entry& entry, std::optional<Time> deadline) {
    if (entry.deadline) deadlines_.erase({*entry.deadline, std::string(key)});
    entry.deadline = deadline;
    if (deadline) deadlines_.emplace(*deadline, key);
  }

  bool erase(std::string_view key) {
    const auto found = entries_.find(key);
    if (found == entries_.end()) return false;
    erase(found);
    return true;
  }

  void charge(std::size_t bytes) { bytes_ += bytes; }
  void refund(std::size_t bytes) { bytes_ -= bytes; }

  [[nodiscard]] std::size_t size() const { return entries_.size(); }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }

  static constexpr std::size_t kPerEntry = 200;
  static constexpr std::size_t kPerItem = 48;

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const {
      return std::hash<std::string_view>()(text);
    }
  };
  using Entries = std::unordered_map<std::string, Entry, Hash, std::equal_to<>>;

  static std::size_t size_of(const std::variant<std::string, List>& value) {
    if (const auto* text = std::get_if<std::string>(&value)) return text->size();
    std::size_t size = 0;
    for (const std::string& item : std::get<List>(value)) size += item.size() + kPerItem;
    return size;
  }

  void erase(Entries::iterator entry) {
    refund(kPerEntry + entry->first.size() + size_of(entry->second.value));
    if (entry->second.deadline) deadlines_.erase({*entry->second.deadline, entry->first});
    entries_.erase(entry);
  }

  Entries entries_;
  std::set<std::pair<Time, std::string>> deadlines_;
  std::size_t bytes_ = 0;
};

}  // namespace resp
