#pragma once

#include <weir/core/engine.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace weir::sim::detail {

/// What happens, for people and for the trace hash.
struct Record {
  static constexpr std::uint32_t kNobody = 0xffffffff;

  TimePoint at{};
  const char* what = "";
  int fd = -1;
  std::int64_t value = 0;
  std::string text = {};
  std::uint32_t loop = 0;        // in whose turn; 0: in none's
  std::uint32_t from = kNobody;  // host that sent the segment
  TimePoint sent{};              // when
};

/// What happened on which host, all of it.
using Log = std::vector<std::pair<std::size_t, Record>>;

/// How often what happened, on which host.
using EventCounts = std::map<std::pair<std::size_t, std::string>, std::uint64_t>;

/// What has happened in a world: its hash, the last of it on each host, all of it on demand.
class Journal {
 public:
  Journal(const TimePoint& now, std::size_t history) noexcept : now_(now), most_(history) {}

  void add_host() { histories_.emplace_back(); }
  void trace(std::size_t host, const char* what, int fd, std::int64_t value);
  void note(std::size_t host, const char* what, std::string text);
  /// A segment that has arrived.
  void trace_segment(std::size_t host, const char* what, int port, std::int64_t value,
                     std::span<const std::byte> bytes, std::size_t from, TimePoint sent);
  /// The loop whose turn it is from now on; gives the one before.
  std::uint32_t enter_loop(std::uint32_t loop) noexcept { return std::exchange(loop_, loop); }
  /// All that happened since this was first called, and what the histories had before.
  const Log& keep_log();
  [[nodiscard]] std::uint64_t hash() const noexcept { return hash_; }
  [[nodiscard]] const std::deque<Record>& history(std::size_t host) const {
    return histories_[host];
  }

  /// For its own life what happens is counted.
  class Counted {
   public:
    Counted(Journal& journal, EventCounts& counts) noexcept : journal_(journal) {
      journal.counts_ = &counts;
    }
    Counted(const Counted&) = delete;
    Counted& operator=(const Counted&) = delete;
    ~Counted() { journal_.counts_ = nullptr; }

   private:
    Journal& journal_;
  };

 private:
  void mix(std::uint64_t value) noexcept;
  void mix_event(std::size_t host, const char* what, int fd, std::int64_t value,
                 std::span<const std::byte> bytes);
  void remember(std::size_t host, Record&& record);

  const TimePoint& now_;
  std::size_t most_;
  std::uint64_t hash_ = 0xcbf29ce484222325;
  std::vector<std::deque<Record>> histories_;
  std::unique_ptr<Log> log_;
  EventCounts* counts_ = nullptr;
  std::uint32_t loop_ = 0;
};

}  // namespace weir::sim::detail
