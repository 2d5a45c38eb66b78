#pragma once

#include <weir/core/engine.h>
#include <weir/io/sim/options.h>

#include <cstddef>
#include <map>
#include <utility>

namespace weir::sim::detail {

class Chance;

/// What is between the machines, each way for itself.
class Links {
 public:
  explicit Links(const Faults& faults) noexcept;

  void set(std::size_t from, std::size_t to, const Link& link) { wire(from, to).link = link; }
  [[nodiscard]] const Link& of(std::size_t from, std::size_t to) const;
  void cut(std::size_t from, std::size_t to, bool off) { wire(from, to).is_cut = off; }
  [[nodiscard]] bool is_cut(std::size_t from, std::size_t to) const;
  void lose_nothing();

  /// When a segment that leaves now arrives.
  TimePoint arrival(Chance& chance, TimePoint now, std::size_t from, std::size_t to,
                    std::size_t bytes);

 private:
  struct Wire {
    Link link;
    bool is_cut = false;
    TimePoint busy_until{};
  };
  Wire& wire(std::size_t from, std::size_t to);

  std::map<std::pair<std::size_t, std::size_t>, Wire> wires_;
  Link default_;
};

}  // namespace weir::sim::detail
