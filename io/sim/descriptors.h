#pragma once

#include <weir/core/engine.h>
#include <weir/io/sim/endpoint.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace weir::sim::detail {

class SimulatedEngine;

/// An operation that waits at a descriptor.
struct Slot {
  Operation* operation = nullptr;
  SimulatedEngine* engine = nullptr;
  explicit operator bool() const noexcept { return operation != nullptr; }
};

/// An open descriptor of a simulated process. What waits at it completes in the order in which it
/// is done; what happens at different descriptors may be told in any order.
struct Descriptor {
  int fd = -1;
  std::shared_ptr<Endpoint> endpoint;  // none: a spare descriptor, or one of signals
  std::uint64_t signals = 0;           // held; bit n - 1 is signal n
  std::uint64_t came = 0;              // of them, and not taken yet
  Slot accept;
  Slot receive;
  Slot send;
  std::vector<Slot> polls;
  TimePoint last_due{};
  std::uint64_t last_tie = 0;

  [[nodiscard]] bool awaited() const noexcept {
    return accept || receive || send || !polls.empty();
  }
};

/// The open descriptors of a simulated process.
class DescriptorTable {
 public:
  explicit DescriptorTable(std::size_t limit) noexcept : limit_(limit) {}

  /// Whether there may be one more is asked by `is_full`.
  Descriptor& add();
  void remove(int fd) noexcept;
  [[nodiscard]] Descriptor* find(int fd) const noexcept;
  /// Those at nullptr are free.
  [[nodiscard]] const std::vector<std::unique_ptr<Descriptor>>& all() const noexcept {
    return all_;
  }

  void set_limit(std::size_t limit) noexcept { limit_ = limit; }
  [[nodiscard]] bool is_full() const noexcept { return open_ >= limit_; }
  [[nodiscard]] std::size_t open_count() const noexcept { return open_; }
  [[nodiscard]] std::string describe_open() const;
  [[nodiscard]] std::string describe_waiting() const;

 private:
  std::vector<std::unique_ptr<Descriptor>> all_;
  std::size_t limit_;
  std::size_t open_ = 0;
};

}  // namespace weir::sim::detail
