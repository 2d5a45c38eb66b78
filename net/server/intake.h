#pragma once

#include <weir/net/acceptor.h>
#include <weir/net/server/core.h>
#include <weir/net/socket.h>

#include <cstddef>
#include <exception>
#include <memory>
#include <vector>

namespace weir::detail {

class Share;

/// How connections come to a server on one loop: it accepts them there, and serves them there or
/// hands them out to the other loops. Loop's thread only.
class Intake {
 public:
  /// With shares to hand out to it serves nobody itself.
  Intake(Share& share, ServerCore::Shares hand_out_to) noexcept;

  void accept_with(Acceptor acceptor);
  /// It hands out what it accepts.
  [[nodiscard]] bool hands_out() const noexcept { return hands_out_; }
  /// What a successor is to inherit.
  void list_listeners(std::vector<int>& descriptors) const;
  /// Whoever the kernel has accepted already, or accepts before it lets go, still comes.
  void stop_listening() noexcept;
  void close() noexcept;
  /// Closed: nothing refers to others any more.
  void clear() noexcept;

 private:
  struct InTransit;

  static Task<> accept_all(std::shared_ptr<Share> share, std::size_t index);
  void hand_out(Socket socket);
  [[nodiscard]] const std::shared_ptr<Share>& next_to_serve() noexcept;

  Share& share_;
  const bool hands_out_;
  ServerCore::Shares hand_out_to_;
  std::size_t next_ = 0;  // of those
  std::vector<Acceptor> acceptors_;
  bool closed_ = false;
};

/// Of which nothing was served: it is reset.
void cannot_start(EventLoop& loop, Socket socket, const std::exception_ptr& failure) noexcept;

}  // namespace weir::detail
