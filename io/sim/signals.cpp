#include <weir/io/sim/process.h>
#include <weir/io/sim/signals.h>

#include <cerrno>
#include <csignal>
#include <utility>

namespace weir::sim::detail {

int SimulatedSignals::hold(int fd, std::uint64_t signals) {
  constexpr auto kNever = (1ULL << (SIGKILL - 1)) | (1ULL << (SIGSTOP - 1));
  if (process_.dead()) return -EBADF;
  if ((signals & kNever) != 0) return -EINVAL;
  if (fd < 0) {
    if (process_.descriptors.is_full()) return -EMFILE;
    fd = process_.open(nullptr);
  }
  Descriptor* descriptor = process_.descriptors.find(fd);
  if (descriptor == nullptr) return -EBADF;
  descriptor->signals = signals;
  return fd;
}

std::uint64_t SimulatedSignals::take(int fd) {
  Descriptor* descriptor = process_.descriptors.find(fd);
  return descriptor == nullptr ? 0 : std::exchange(descriptor->came, 0);
}

void SimulatedSignals::let_go(int fd) noexcept { process_.close(fd); }

bool SimulatedSignals::deliver(int number) {
  const std::uint64_t bit = 1ULL << (number - 1);
  bool held = false;
  const auto& all = process_.descriptors.all();
  for (std::size_t i = 0; !process_.dead() && i < all.size(); ++i) {
    Descriptor* descriptor = all[i].get();
    if (descriptor == nullptr || (descriptor->signals & bit) == 0) continue;
    held = true;
    descriptor->came |= bit;
    process_.progress(*descriptor);
  }
  return held;
}

}  // namespace weir::sim::detail
