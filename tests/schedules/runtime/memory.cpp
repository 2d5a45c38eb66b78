#include "memory.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <string>
#include <utility>

#include "report.h"

namespace weir::schedules {
namespace {

constexpr std::uintptr_t kGranule = 8;
/// Stores of a variable that loads may still give.
constexpr std::size_t kMostStores = 6;

bool acquires(int order) noexcept {
  return order == __ATOMIC_ACQUIRE || order == __ATOMIC_CONSUME || order == __ATOMIC_ACQ_REL ||
         order == __ATOMIC_SEQ_CST;
}
bool releases(int order) noexcept {
  return order == __ATOMIC_RELEASE || order == __ATOMIC_ACQ_REL || order == __ATOMIC_SEQ_CST;
}

std::uint64_t value_at(const void* address, std::size_t bytes) noexcept {
  std::uint64_t value = 0;
  std::memcpy(&value, address, bytes);  // little-endian
  return value;
}

}  // namespace

void Shadow::forget_all() noexcept {
  ++round_;
  used_ = 0;
  freed_.clear();
}

Shadow::Page* Shadow::find(std::uintptr_t number, bool makes) {
  constexpr std::uint64_t kMix = 0x9e3779b97f4a7c15;
  std::size_t index = (number * kMix) >> 51U;
  static_assert(kPages == std::size_t{1} << (64 - 51));
  for (;; index = (index + 1) % kPages) {
    Page& page = pages_[index];
    if (page.round != round_) break;
    if (page.number == number) return &page;
  }
  if (!makes) return nullptr;
  if (++used_ > kPages / 2) fail("a scenario uses too much memory for its shadow");
  Page& page = pages_[index];
  page.number = number;
  page.round = round_;
  std::fill(std::begin(page.cells), std::end(page.cells), Cell());
  return &page;
}

bool Shadow::was_freed(std::uintptr_t address) const noexcept {
  auto after = freed_.upper_bound(address);
  if (after == freed_.begin()) return false;
  --after;
  return address < after->first + after->second;
}

bool Shadow::is_same(const Access& one, const Access& other) noexcept {
  return one.time == other.time && one.thread == other.thread && one.bytes == other.bytes &&
         one.kind.write == other.kind.write && one.kind.atomic == other.kind.atomic;
}

void Shadow::look_for_race(const Cell& cell, const Access* accesses, const Knowledge& who,
                           const Access& access) {
  for (std::size_t i = 0; i < cell.count; ++i) {
    const Access& other = accesses[i];
    if (other.thread == access.thread || (other.bytes & access.bytes) == 0) continue;
    if (!other.kind.write && !access.kind.write) continue;
    if (other.kind.atomic && access.kind.atomic) continue;
    if (who.before.covers(other.thread, other.time)) continue;
    const auto said = [](const Access& one) {
      return "thread " + std::to_string(one.thread) +
             (one.kind.atomic  ? " (atomic) "
              : one.kind.write ? " (write) "
                               : " (read) ") +
             place(one.from);
    };
    fail("a data race: " + said(other) + " and " + said(access));
  }
}

void Shadow::note(Cell& cell, Access* accesses, const Knowledge& who,
                  const Access& access) noexcept {
  std::size_t kept = 0;
  for (std::size_t i = 0; i < cell.count; ++i) {
    const Access& other = accesses[i];
    const bool inside = (other.bytes & ~access.bytes) == 0;
    const bool same = other.thread == access.thread && other.kind.write == access.kind.write &&
                      other.kind.atomic == access.kind.atomic;
    // Whoever races with one that a plain write covers races with that write.
    const bool covered =
        access.kind.write && !access.kind.atomic && who.before.covers(other.thread, other.time);
    if (inside && (same || covered)) continue;
    accesses[kept++] = other;
  }
  if (kept == kAccesses) {
    std::move(accesses + 1, accesses + kept, accesses);
    --kept;
  }
  accesses[kept++] = access;
  cell.count = static_cast<std::uint8_t>(kept);
}

bool Shadow::touch(const Knowledge& who, const void* address, std::size_t bytes, Kind kind,
                   const void* from) {
  bool was_synchronizing = false;
  auto at = reinterpret_cast<std::uintptr_t>(address);
  while (bytes > 0) {
    const std::uintptr_t offset = at % kGranule;
    const std::size_t part = std::min<std::size_t>(bytes, kGranule - offset);
    const auto mask = static_cast<std::uint8_t>(((1U << part) - 1) << offset);
    const std::uintptr_t granule = at / kGranule;
    Page& page = *find(granule / kCells, true);
    Cell& cell = page.cells[granule % kCells];
    Access* const accesses = page.accesses[granule % kCells];
    if (!cell.used) {
      cell.used = true;
      cell.freed = was_freed(granule * kGranule);
    }
    if (cell.freed) {
      fail("memory is used after it was freed, by thread " + std::to_string(who.thread) + " " +
           place(from));
    }
    const Access access{who.now(), static_cast<std::uint8_t>(who.thread), mask, kind, from};
    at += part;
    bytes -= part;
    // In one time of a thread's nobody else touches what it has touched, or it was a race already.
    if (cell.count > 0 && is_same(accesses[cell.count - 1], access)) continue;
    look_for_race(cell, accesses, who, access);
    note(cell, accesses, who, access);
    if (kind.atomic) {
      cell.synchronizes = true;
    } else if (kind.write && cell.synchronizes) {
      cell.synchronizes = false;
      was_synchronizing = true;
    }
  }
  return was_synchronizing;
}

void Shadow::free(const Knowledge& who, const void* block, std::size_t bytes, const void* from) {
  const auto first = reinterpret_cast<std::uintptr_t>(block);
  const Access access{who.now(), static_cast<std::uint8_t>(who.thread), 0xff, {true, false}, from};
  const std::uintptr_t end = (first + bytes + kGranule - 1) / kGranule;
  for (std::uintptr_t granule = first / kGranule; granule < end;) {
    Page* const page = find(granule / kCells, false);
    const std::uintptr_t next = std::min(end, (granule / kCells + 1) * kCells);
    for (; page != nullptr && granule < next; ++granule) {
      Cell& cell = page->cells[granule % kCells];
      if (!cell.used) continue;
      if (cell.freed) fail("memory is freed twice " + place(from));
      look_for_race(cell, page->accesses[granule % kCells], who, access);
      cell.freed = true;
    }
    granule = next;
  }
  freed_[first] = bytes;
}

void Locations::forget(const void* address, std::size_t bytes) noexcept {
  const auto* at = static_cast<const char*>(address);
  for (std::size_t i = 0; i < bytes; ++i) locations_.erase(at + i);
}

bool Locations::is_point(Location& location, std::size_t thread, std::uint64_t site) {
  if (location.first == kMostThreads) location.first = thread;
  const auto add = [this](std::uint64_t where) { news_ = points_.insert(where).second || news_; };
  if (!location.shared && location.first != thread) {
    location.shared = true;
    for (const std::uint64_t where : location.sites) add(where);
    location.sites.clear();
  }
  if (location.shared) {
    add(site);
  } else if (std::find(location.sites.begin(), location.sites.end(), site) ==
             location.sites.end()) {
    location.sites.push_back(site);
  }
  return points_.contains(site);
}

bool Locations::take_news() noexcept { return std::exchange(news_, false); }

/// What somebody else wrote there, code that is not compiled for this, is the only store.
void Locations::look(Location& location, const Knowledge& who, const void* address,
                     std::size_t bytes) {
  const std::uint64_t value = value_at(address, bytes);
  if (location.bytes == bytes && location.stores.back().value == value) return;
  location.dropped += location.stores.size();
  location.stores.clear();
  location.stores.push_back({value, who.thread, 0, false, {}});
  location.bytes = bytes;
}

std::size_t Locations::visible(Location& location, const Knowledge& who, const void* address,
                               std::size_t bytes, int order) {
  look(location, who, address, bytes);
  const std::size_t count = location.stores.size();
  for (std::size_t age = 0; age + 1 < count; ++age) {
    const Location::Store& store = location.stores[count - 1 - age];
    const std::uint64_t number = location.dropped + count - 1 - age;
    if (who.seen.covers(store.thread, store.time) || number <= location.read[who.thread] ||
        (order == __ATOMIC_SEQ_CST && number <= location.last_consistent)) {
      return age + 1;
    }
  }
  return count;
}

std::uint64_t Locations::load(Location& location, Knowledge& who, int order, std::size_t age) {
  const std::size_t index = location.stores.size() - 1 - age;
  const Location::Store& store = location.stores[index];
  location.read[who.thread] = location.dropped + index;
  if (store.gives) {
    if (acquires(order)) {
      who.join(store.clock);
    } else {
      who.acquired.join(store.clock);
    }
  }
  return store.value;
}

/// `changes`: it read the latest store, whose release it gives on.
void Locations::store(Location& location, Knowledge& who, std::uint64_t value, int order,
                      bool changes) {
  Location::Store store{value, who.thread, who.now(), true, {}};
  store.clock = releases(order) ? who.before : who.released;
  if (changes && location.stores.back().gives) store.clock.join(location.stores.back().clock);
  location.stores.push_back(store);
  if (location.stores.size() > kMostStores) {
    location.stores.erase(location.stores.begin());
    ++location.dropped;
  }
  const std::uint64_t number = location.dropped + location.stores.size() - 1;
  location.read[who.thread] = number;
  if (order == __ATOMIC_SEQ_CST) {
    location.last_consistent = number;
    fence_.times[who.thread] = std::max(fence_.times[who.thread], who.now());
  }
  who.tick();
}

void Locations::fence(Knowledge& who, int order) {
  if (acquires(order)) who.join(who.acquired);
  if (order == __ATOMIC_SEQ_CST) {
    who.seen.join(fence_);
    fence_.join(who.seen);
  }
  if (releases(order)) {
    who.released = who.before;
    who.tick();
  }
}

}  // namespace weir::schedules
