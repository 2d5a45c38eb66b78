#pragma once

#include <weir/net/server/roster.h>
#include <weir/net/tcp_connection.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace weir::detail {

class Share;

/// A walk of `for_each_connection` from loop to loop, over the connections that stand there when it
/// comes. One turn of a loop is given so much of it that others do not notice; the rest is posted.
class Walk {
 public:
  using Function = std::function<void(TcpConnection&)>;
  using Shares = std::vector<std::shared_ptr<Share>>;

  /// Begins where this thread's loop is; without one it returns at the end, and throws what the
  /// function threw.
  static void start(Function function, Shares shares);

 private:
  Walk(Function function, Shares shares)
      : function_(std::move(function)), shares_(std::move(shares)) {}

  /// From a thread without a loop: whoever has a loop answers it, and a loop that has ended has no
  /// connections any more.
  void go_from_outside();
  static void go_on(const std::shared_ptr<Walk>& walk);
  static void go_to_next(const std::shared_ptr<Walk>& walk);
  /// Begins with the share's connections, or goes on, until it is through (true) or a slice of the
  /// turn is over.
  bool visit(Share& share);

  const Function function_;
  Shares shares_;  // in this order
  std::size_t at_ = 0;

  // On the present loop.
  Walker walker_;
  Share* begun_ = nullptr;  // with whose connections
  std::uint64_t last_ = 0;  // the number of the last that stood there when it came
};

}  // namespace weir::detail
