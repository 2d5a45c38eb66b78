#pragma once

#include <weir/net/socket_address.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <new>
#include <unordered_map>

namespace weir::detail {

/// Who may come in, and how many are in. From any thread.
class Admission {
 public:
  /// At the most, in all and from one peer; 0: no limit.
  Admission(std::size_t most, std::size_t most_of_peer) noexcept
      : most_(most), most_of_peer_(most_of_peer) {}

  /// Whether the limits are told apart by peer; if not, all peers are 0.
  [[nodiscard]] bool by_peer() const noexcept { return most_of_peer_ > 0; }
  [[nodiscard]] std::uint64_t peer(const SocketAddress& address) const noexcept {
    return by_peer() ? address.peer_key() : 0;
  }

  /// Counts a connection in, if the limits allow it. To be followed by `leave`.
  [[nodiscard]] bool admit(std::uint64_t peer);
  void leave(std::uint64_t peer) noexcept;

  /// Refuses one that has not been counted, if a loop with so many connections, be they on the way
  /// to it, can have no more. True then.
  [[nodiscard]] bool refuse_beyond(std::size_t load);

  // A connection of which it is not known yet who the peer is.
  /// The same of the limit in all.
  [[nodiscard]] bool admit_unknown();
  void leave_unknown() noexcept { --count_; }
  /// It is known now: true, to be followed by `leave` in place of `leave_unknown`, if the limit of
  /// the peer allows it.
  [[nodiscard]] bool identify(std::uint64_t peer);

  [[nodiscard]] std::size_t count() const noexcept { return count_; }
  [[nodiscard]] std::uint64_t refused() const;
  /// Peers that a count is kept of.
  [[nodiscard]] std::size_t peers() const;

  /// In the child of a fork: whoever had the lock is not there.
  void become_parents() noexcept { new (&mutex_) std::mutex; }

 private:
  // With the lock.
  [[nodiscard]] bool count_in(std::uint64_t peer) noexcept;
  bool refuse() noexcept;  // who was counted; false

  const std::size_t most_;
  const std::size_t most_of_peer_;
  std::atomic<std::size_t> count_{0};
  mutable std::mutex mutex_;
  std::unordered_map<std::uint64_t, std::size_t> of_peer_;
  std::uint64_t refused_ = 0;
};

}  // namespace weir::detail
