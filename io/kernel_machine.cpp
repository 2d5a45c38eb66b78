#include <weir/core/engine.h>
#include <weir/core/processor.h>
#include <weir/core/socket_view.h>
#include <weir/core/work_queue.h>
#include <weir/io/engines.h>
#include <weir/io/handover.h>
#include <weir/io/kernel_machine.h>
#include <weir/io/kernel_names.h>
#include <weir/io/kernel_sockets.h>
#include <weir/io/kernel_thread.h>
#include <weir/io/random.h>
#include <weir/io/thread_probe.h>
#include <weir/io/turn_watcher.h>

#include <linux/tcp.h>  // <netinet/tcp.h> knows less
#include <netinet/in.h>
#include <sys/random.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <ctime>
#include <utility>

namespace weir::detail {
namespace {

/// From getrandom(2): where the dice begin.
std::uint64_t kernel_seed() noexcept {
  std::uint64_t seed = 0;
  if (::getrandom(&seed, sizeof seed, GRND_NONBLOCK) == sizeof seed) return seed;
  return static_cast<std::uint64_t>(kernel_now().time_since_epoch().count());
}

/// Of this thread: one within the other, if there are several; and the first of them that is bound.
thread_local constinit unsigned depth_of_runs = 0;
thread_local constinit unsigned bound_since = 0;

}  // namespace

TimePoint kernel_now() noexcept { return std::chrono::steady_clock::now(); }

KernelMachine::KernelMachine() noexcept : dice_(kernel_seed()) {}

TimePoint KernelMachine::now() noexcept { return kernel_now(); }

std::uint32_t KernelMachine::clock_ms() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return static_cast<std::uint32_t>(now.tv_sec * 1000 + now.tv_nsec / 1'000'000);
}

std::uint64_t KernelMachine::random() noexcept {
  return Random(dice_.fetch_add(Random::kStep, std::memory_order_relaxed)).next();
}

Sockets& KernelMachine::sockets() noexcept { return kernel_sockets(); }

std::unique_ptr<IoEngine> KernelMachine::make_engine(const LoopOptions& options) {
  return detail::make_engine(options);
}

std::unique_ptr<LoopRunner> KernelMachine::start_loop(const LoopOptions& options) {
  return std::make_unique<KernelThread>(options);
}

Task<std::vector<RawAddress>> KernelMachine::look_up(NameQuery query) {
  return kernel_look_up(std::move(query));
}

void KernelMachine::start_work(WorkQueue& queue, std::shared_ptr<Work> work) {
  queue.push(std::move(work));
}

Task<bool> KernelMachine::start_successor(SuccessorCommand command) {
  return detail::start_successor(std::move(command));
}

void KernelMachine::begin_run(TurnWatch& turns, int cpu) {
  if (cpu >= 0) {
    bind_thread(cpu);
    if (bound_since == 0) bound_since = depth_of_runs + 1;
  }
  ++depth_of_runs;
  if (turns.limit.count() > 0) TurnWatcher::instance().add(turns);
}

void KernelMachine::end_run(TurnWatch& turns) noexcept {
  if (turns.limit.count() > 0) TurnWatcher::instance().remove(turns);
  if (depth_of_runs-- != bound_since) return;
  bound_since = 0;
  unbind_thread();
}

ThreadView KernelMachine::look_at_thread(int thread) { return detail::look_at_thread(thread); }

std::optional<SocketView> KernelMachine::look_at_socket(int fd) noexcept {
  tcp_info info{};
  socklen_t size = sizeof info;
  if (::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return std::nullopt;
  // An older kernel, or what stands in for one, fills less of it.
  if (size < offsetof(tcp_info, tcpi_bytes_received) + sizeof info.tcpi_bytes_received) {
    return std::nullopt;
  }
  return SocketView{.received = info.tcpi_bytes_received,
                    .acknowledged = info.tcpi_bytes_acked,
                    .idle_ms = std::min(info.tcpi_last_data_recv, info.tcpi_last_data_sent),
                    .round_trip_us = info.tcpi_rtt,
                    .retransmits = info.tcpi_total_retrans};
}

Machine& process_machine() noexcept {
  static KernelMachine instance;
  return instance;
}

}  // namespace weir::detail
