#include <weir/net/server/admission.h>

namespace weir::detail {

bool Admission::admit(std::uint64_t peer) {
  const std::size_t count = ++count_;
  const bool fits = most_ == 0 || count <= most_;
  if (fits && !by_peer()) return true;
  const std::lock_guard lock(mutex_);
  return (fits && count_in(peer)) || refuse();
}

bool Admission::admit_unknown() {
  const std::size_t count = ++count_;
  if (most_ == 0 || count <= most_) return true;
  const std::lock_guard lock(mutex_);
  return refuse();
}

bool Admission::refuse_beyond(std::size_t load) {
  if (most_ == 0 || load < most_) return false;
  const std::lock_guard lock(mutex_);
  ++refused_;
  return true;
}

bool Admission::refuse() noexcept {
  ++refused_;
  --count_;
  return false;
}

bool Admission::identify(std::uint64_t peer) {
  if (!by_peer()) return true;
  const std::lock_guard lock(mutex_);
  if (count_in(peer)) return true;
  ++refused_;
  return false;
}

bool Admission::count_in(std::uint64_t peer) noexcept {
  try {
    std::size_t& of_peer = of_peer_[peer];
    if (of_peer >= most_of_peer_) return false;
    ++of_peer;
    return true;
  } catch (...) {  // short of memory: as if the peer had its share
    return false;
  }
}

void Admission::leave(std::uint64_t peer) noexcept {
  --count_;
  if (!by_peer()) return;
  const std::lock_guard lock(mutex_);
  const auto found = of_peer_.find(peer);
  if (found != of_peer_.end() && --found->second == 0) of_peer_.erase(found);
}

std::uint64_t Admission::refused() const {
  const std::lock_guard lock(mutex_);
  return refused_;
}

std::size_t Admission::peers() const {
  const std::lock_guard lock(mutex_);
  return of_peer_.size();
}

}  // namespace weir::detail
