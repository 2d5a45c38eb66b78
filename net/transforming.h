#pragma once

#include <weir/net/stream/failure.h>
#include <weir/net/transform.h>

#include <memory>

namespace weir::detail {

class Connection;

/// What a connection's bytes go through between the kernel and its boxes, if they go through
/// anything, as its `transforming_`. Loop's thread.
class Transforming {
 public:
  [[nodiscard]] Transform* get() const noexcept { return transform_.get(); }

  /// From now on bytes go through it, those that are unread included. While nobody reads, and all
  /// that was sent has gone. Throws `std::bad_alloc`.
  void begin(std::unique_ptr<Transform> transform);
  /// The transform has done all that it was for: it goes, and bytes are the user's as they come.
  /// Nothing has gone through it to the wire.
  void end() noexcept;
  /// It has worked: what it has for the wire is to be sent, and what it gives is why the connection
  /// breaks, once it has said so.
  void worked(Failure failure) noexcept;
  /// The peer's FIN came.
  void peer_ended() noexcept;
  /// The connection is over: it need not be told anything any more.
  void over(Failure failure) noexcept {
    if (transform_ != nullptr) transform_->over(failure);
  }

 private:
  [[nodiscard]] Connection& connection() const noexcept;

  std::unique_ptr<Transform> transform_;
};

}  // namespace weir::detail
