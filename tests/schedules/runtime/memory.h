#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "clock.h"

namespace weir::schedules {

/// A place in the program: where it calls, for what.
struct Step {
  const char* what;
  const void* from;
  std::uint64_t site;  // the same, and who called that
};

/// Of each byte who read and wrote it last, without what happens before that: to see whether two
/// threads touch it at a time, and whether it was freed.
class Shadow {
 public:
  Shadow() : pages_(std::make_unique<Page[]>(kPages)) {}

  void forget_all() noexcept;
  struct Kind {
    bool write;
    bool atomic;
  };
  /// Fails the schedule if it is a race, or the memory was freed. True if a plain write is where an
  /// atomic variable or a mutex was.
  bool touch(const Knowledge& who, const void* address, std::size_t bytes, Kind kind,
             const void* from);
  /// The block is freed, which writes it.
  void free(const Knowledge& who, const void* block, std::size_t bytes, const void* from);

 private:
  struct Access {
    std::uint32_t time;
    std::uint8_t thread;
    std::uint8_t bytes;  // a bit for each
    Kind kind;
    const void* from;
  };
  static constexpr std::size_t kAccesses = 6;
  /// Of eight bytes.
  struct Cell {
    bool used = false;
    bool freed = false;
    bool synchronizes = false;
    std::uint8_t count = 0;
  };
  /// Of neighbours, for they are used together.
  static constexpr std::size_t kCells = 64;
  struct Page {
    std::uintptr_t number = 0;
    std::uint32_t round = 0;
    Cell cells[kCells];
    Access accesses[kCells][kAccesses];
  };
  static constexpr std::size_t kPages = std::size_t{1} << 13;

  static bool is_same(const Access& one, const Access& other) noexcept;
  Page* find(std::uintptr_t number, bool makes);
  static void look_for_race(const Cell& cell, const Access* accesses, const Knowledge& who,
                            const Access& access);
  static void note(Cell& cell, Access* accesses, const Knowledge& who,
                   const Access& access) noexcept;
  [[nodiscard]] bool was_freed(std::uintptr_t address) const noexcept;

  std::unique_ptr<Page[]> pages_;
  std::size_t used_ = 0;
  std::uint32_t round_ = 1;
  std::map<std::uintptr_t, std::size_t> freed_;
};

/// Of an atomic variable or a mutex.
struct Location {
  struct Store {
    std::uint64_t value;
    std::size_t thread;
    std::uint32_t time;
    bool gives;  // has a clock to acquire
    Clock clock;
  };

  // Who uses it, and where.
  std::size_t first = kMostThreads;
  bool shared = false;
  std::vector<std::uint64_t> sites;

  // Of an atomic variable: the last of its stores, the latest last.
  std::size_t bytes = 0;
  std::vector<Store> stores;
  std::uint64_t dropped = 0;                       // stores before those
  std::array<std::uint64_t, kMostThreads> read{};  // the latest that each thread knows
  std::uint64_t last_consistent = 0;               // the latest sequentially consistent one

  // Of a mutex, or of what is initialized once.
  std::size_t owner = kMostThreads;
  Clock clock;
};

/// The atomic variables and mutexes of a schedule, by address.
class Locations {
 public:
  void forget_all() noexcept {
    locations_.clear();
    fence_ = {};
  }
  Location& at(const void* address) { return locations_[address]; }
  void forget(const void* address, std::size_t bytes) noexcept;

  /// Whether threads may be changed there: where some variable was used that some other thread
  /// used, too, in this or an earlier schedule.
  bool is_point(Location& location, std::size_t thread, std::uint64_t site);
  /// Since the last call there are more of them.
  [[nodiscard]] bool take_news() noexcept;

  // Of atomic variables. `order` as of `__ATOMIC_…`.
  /// How many stores a load may give, of the latest and older.
  std::size_t visible(Location& location, const Knowledge& who, const void* address,
                      std::size_t bytes, int order);
  std::uint64_t load(Location& location, Knowledge& who, int order, std::size_t age);
  void store(Location& location, Knowledge& who, std::uint64_t value, int order, bool changes);
  void fence(Knowledge& who, int order);

 private:
  static void look(Location& location, const Knowledge& who, const void* address,
                   std::size_t bytes);

  std::unordered_map<const void*, Location> locations_;
  std::unordered_set<std::uint64_t> points_;
  bool news_ = false;
  Clock fence_;
};

}  // namespace weir::schedules
