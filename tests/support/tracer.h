#pragma once

#include <string>
#include <utility>
#include <vector>

namespace weir::test {

/// Counts its own objects: each must be destroyed exactly once.
class Tracer {
 public:
  struct Counts {
    int made = 0;
    int destroyed = 0;
    [[nodiscard]] int alive() const noexcept { return made - destroyed; }
  };

  explicit Tracer(Counts& counts) noexcept : counts_(&counts) { ++counts_->made; }
  Tracer(const Tracer& other) noexcept : counts_(other.counts_) { ++counts_->made; }
  Tracer(Tracer&& other) noexcept : counts_(other.counts_) { ++counts_->made; }
  Tracer& operator=(const Tracer&) noexcept = default;
  Tracer& operator=(Tracer&&) noexcept = default;
  ~Tracer() { ++counts_->destroyed; }

 private:
  Counts* counts_;
};

/// Writes its name to a journal when it is destroyed: shows in which order frames unwind.
class Farewell {
 public:
  Farewell(std::vector<std::string>& journal, std::string name)
      : journal_(journal), name_(std::move(name)) {}
  Farewell(const Farewell&) = delete;
  Farewell& operator=(const Farewell&) = delete;
  ~Farewell() { journal_.push_back(std::move(name_)); }

 private:
  std::vector<std::string>& journal_;
  std::string name_;
};

}  // namespace weir::test
