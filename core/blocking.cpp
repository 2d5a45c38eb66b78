#include <weir/core/blocking.h>

#include <algorithm>
#include <thread>

namespace weir {

BlockingPool::BlockingPool(BlockingPoolOptions options) {
  std::size_t threads = options.threads;
  if (threads == 0) threads = std::max<std::size_t>(4, std::thread::hardware_concurrency());
  queue_ = std::make_shared<detail::WorkQueue>(threads, options.queue);
}

const std::shared_ptr<detail::WorkQueue>& detail::process_work_queue() {
  static const BlockingPool pool;
  return pool.queue_;
}

}  // namespace weir
