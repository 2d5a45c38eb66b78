#pragma once

#include <weir/core/engine.h>
#include <weir/io/sim/address.h>
#include <weir/io/sim/chance.h>
#include <weir/io/sim/journal.h>
#include <weir/io/sim/links.h>
#include <weir/io/sim/options.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace weir::sim::detail {

class Endpoint;
class Kernel;

/// Time, randomness, machines and what is between them.
class Network {
  TimePoint now_{std::chrono::hours(1)};  // before those that refer to it

 public:
  explicit Network(const WorldOptions& options);
  ~Network();

  [[nodiscard]] TimePoint now() const noexcept { return now_; }
  /// The event happens then, behind those that were arranged before for the same time.
  void schedule(TimePoint at, std::function<void()> event);
  /// One event. False if there is none.
  bool step();
  [[nodiscard]] bool empty() const noexcept { return events_.empty(); }
  [[nodiscard]] TimePoint next() const noexcept;
  void advance_to(TimePoint to) noexcept {
    if (to > now_) now_ = to;
  }

  std::size_t add_machine();
  [[nodiscard]] Kernel& kernel(std::size_t host) noexcept { return *kernels_[host]; }
  [[nodiscard]] Kernel* find_machine(const Address& address) noexcept;
  [[nodiscard]] bool is_taken(const Address& address) const noexcept;

  void cut(std::size_t from, std::size_t to);
  void mend(std::size_t from, std::size_t to);
  [[nodiscard]] bool reaches(std::size_t from, std::size_t to) noexcept;
  /// Connections that notice nothing by themselves are asked after a while whether they live.
  void probe_later(std::size_t host);
  void watch(const std::shared_ptr<Endpoint>& endpoint);

  /// When a segment that leaves now arrives.
  TimePoint arrival(std::size_t from, std::size_t to, std::size_t bytes) {
    return links.arrival(chance, now_, from, to, bytes);
  }
  /// From now on nothing goes wrong.
  void stop_faults();

  [[nodiscard]] const WorldOptions& options() const noexcept { return options_; }

  Journal journal;
  Chance chance;
  Links links;
  std::size_t leases_left = 0;  // of engines that have gone

 private:
  struct Event {
    TimePoint at;
    std::uint64_t sequence;
    std::function<void()> run;
    friend bool operator<(const Event& a, const Event& b) noexcept {
      return a.at != b.at ? a.at > b.at : a.sequence > b.sequence;
    }
  };
  WorldOptions options_;
  std::uint64_t sequence_ = 0;
  std::vector<Event> events_;  // a heap, the next one first
  std::vector<std::unique_ptr<Kernel>> kernels_;
  std::vector<std::weak_ptr<Endpoint>> endpoints_;
  std::size_t most_endpoints_ = 64;  // before those that are gone are swept out
};

}  // namespace weir::sim::detail
