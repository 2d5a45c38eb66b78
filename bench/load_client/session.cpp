#include "session.h"

#include <algorithm>
#include <bit>
#include <chrono>

namespace load_client {
namespace {

using namespace std::chrono_literals;

constexpr unsigned kSubmissionEntries = 1024;
constexpr unsigned kCompletionEntries = 16384;
constexpr std::size_t kBufferBytes = 4 << 20;  // few enough to stay in the caches
constexpr auto kTickPeriod = 100ms;

std::size_t buffer_size(const Options& options) {
  return std::clamp<std::size_t>(std::bit_ceil(options.size * options.depth), 4096, 262144);
}

}  // namespace

Session::Session(const Options& options)
    : Run(options),
      buffers_(static_cast<unsigned>(
                   std::clamp<std::size_t>(kBufferBytes / buffer_size(options), 32, 1024)),
               buffer_size(options)),
      ring_(kSubmissionEntries, kCompletionEntries) {
  buffers_.register_with(ring_);
}

void Session::arm_tick() {
  static __kernel_timespec period{.tv_sec = 0,
                                  .tv_nsec = std::chrono::nanoseconds(kTickPeriod).count()};
  io_uring_sqe* entry = ring_.next_entry();
  io_uring_prep_timeout(entry, &period, 0, 0);
  entry->user_data = kTick;
}

}  // namespace load_client
