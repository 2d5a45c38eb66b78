#include <weir/net/inspect/servers.h>
#include <weir/net/server/core.h>
#include <weir/net/server/traffic.h>

#include <pthread.h>

namespace weir::detail {

AllServers& AllServers::instance() {
  static auto* const all = [] {
    auto* const made = new AllServers;
    // Whoever forks finds the lock free on both sides; and the child nothing that threads have
    // which are not there.
    ::pthread_atfork([] { instance().mutex_.lock(); }, [] { instance().mutex_.unlock(); },
                     [] {
                       while (ServerEntry* entry = instance().entries_.pop_front()) {
                         entry->core.become_parents();
                       }
                       instance().mutex_.unlock();
                     });
    return made;
  }();
  return *all;
}

void AllServers::add(ServerEntry& entry) noexcept {
  const std::lock_guard lock(mutex_);
  entries_.push_back(entry);
}

void AllServers::remove(ServerEntry& entry) noexcept {
  const std::lock_guard lock(mutex_);
  entry.link.unlink();
}

void AllServers::hide(const TcpServer& server) noexcept {
  const std::lock_guard lock(mutex_);
  for (ServerEntry* entry = entries_.front(); entry != nullptr; entry = entries_.after(*entry)) {
    if (&entry->server == &server) return entry->link.unlink();
  }
}

std::vector<ServerReport> AllServers::look() {
  TrafficUpdate update;
  {
    const std::lock_guard lock(mutex_);
    for (ServerEntry* entry = entries_.front(); entry != nullptr; entry = entries_.after(*entry)) {
      update.ask(entry->core);
    }
  }
  update.wait();
  std::vector<ServerReport> all;
  const std::lock_guard lock(mutex_);
  for (ServerEntry* entry = entries_.front(); entry != nullptr; entry = entries_.after(*entry)) {
    const ServerCore& core = entry->core;
    all.push_back({core.options.name, core.metrics(), core.waits()});
  }
  return all;
}

}  // namespace weir::detail
