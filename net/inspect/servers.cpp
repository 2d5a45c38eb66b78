#include <weir/net/inspect/servers.h>

namespace weir::detail {

AllServers& AllServers::instance() {
  static auto* const all = new AllServers;
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

void AllServers::for_each(const std::function<void(const ServerEntry&)>& function) {
  const std::lock_guard lock(mutex_);
  for (ServerEntry* entry = entries_.front(); entry != nullptr; entry = entries_.after(*entry)) {
    function(*entry);
  }
}

}  // namespace weir::detail
