#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "../look/json.h"

namespace top {

/// Where a task waits, and for what.
struct Place {
  std::string function;
  std::string file;
  std::uint64_t line = 0;  // 0: in none of the program's coroutines
  std::string waits_for;   // nothing: for what stands below it

  /// "function at file:line: Mutex::lock".
  [[nodiscard]] std::string text() const;
  friend bool operator==(const Place&, const Place&) = default;
};

/// Tasks that wait at the same place, below the same places: a flame of counts.
struct Flame {
  Place place;
  std::uint64_t count = 0;
  std::uint64_t oldest_ms = 0;
  std::vector<Flame> children;
};

/// One that waits for no other task.
struct Wait {
  Place place;
  std::uint64_t waiting_ms = 0;
  std::string loop;
  std::string connection;    // that its task reads or handles; nothing if it does not
  std::string name;          // that the task gave itself, or one above it
  std::vector<Place> above;  // who waits for it, the nearest first
};

/// Of an inspector's `/tasks`: the most frequent first, then the oldest.
std::vector<Flame> flames_of(const look::Json& tasks);

/// The oldest first.
std::vector<Wait> waits_of(const look::Json& tasks);

}  // namespace top
