#include "system_limits.h"

#include <sys/resource.h>
#include <unistd.h>

#include <cstdint>
#include <fstream>
#include <sstream>

namespace doctor {
namespace {

constexpr std::uint64_t kDescriptors = 65536;
constexpr std::uint64_t kLockedBytes = 8 << 20;  // some forty loops
constexpr std::uint64_t kBacklog = 4096;         // ServerOptions::backlog
constexpr std::uint64_t kTcpBytes = 256 << 20;
constexpr std::uint64_t kPorts = 28000;

/// The numbers of a file of /proc; empty if it is not there.
std::vector<std::uint64_t> numbers_of(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::uint64_t> numbers;
  for (std::uint64_t number = 0; file >> number;) numbers.push_back(number);
  return numbers;
}

std::string text_of(rlim_t limit) {
  return limit == RLIM_INFINITY ? "unlimited" : std::to_string(limit);
}

std::string mebibytes(std::uint64_t bytes) { return std::to_string(bytes >> 20) + " MiB"; }

Limit descriptors() {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  Limit found;
  found.name = "RLIMIT_NOFILE";
  found.value = text_of(limit.rlim_cur) + " (hard limit " + text_of(limit.rlim_max) + ")";
  found.matters_for = "a descriptor for each connection; at the limit clients are turned away";
  found.enough = limit.rlim_cur >= kDescriptors;
  found.raise_to = std::to_string(kDescriptors);
  found.command = "ulimit -n 65536, or LimitNOFILE=65536 in the systemd unit";
  return found;
}

Limit locked_memory() {
  rlimit limit{};
  ::getrlimit(RLIMIT_MEMLOCK, &limit);
  Limit found;
  found.name = "RLIMIT_MEMLOCK";
  found.value =
      limit.rlim_cur == RLIM_INFINITY ? "unlimited" : std::to_string(limit.rlim_cur >> 10) + " KiB";
  found.matters_for = "the rings of io_uring, over all processes of the user; root is exempt";
  if (::geteuid() == 0) found.value += ", and this is root";
  found.enough = ::geteuid() == 0 || limit.rlim_cur >= kLockedBytes;
  found.raise_to = mebibytes(kLockedBytes);
  found.command = "ulimit -l 8192, or LimitMEMLOCK=8M in the systemd unit";
  return found;
}

/// A number of sysctl that should be at least `least`.
Limit sysctl(const std::string& name, std::uint64_t least, const std::string& matters_for) {
  std::string path = "/proc/sys/" + name;
  for (char& letter : path) {
    if (letter == '.') letter = '/';
  }
  const auto numbers = numbers_of(path);
  Limit found;
  found.name = name;
  found.value = numbers.empty() ? "unknown" : std::to_string(numbers.front());
  found.matters_for = matters_for;
  found.enough = numbers.empty() || numbers.front() >= least;
  found.raise_to = std::to_string(least);
  found.command = "sysctl -w " + name + "=" + std::to_string(least);
  return found;
}

Limit tcp_memory() {
  const auto pages = numbers_of("/proc/sys/net/ipv4/tcp_mem");
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  Limit found;
  found.name = "net.ipv4.tcp_mem";
  found.matters_for = "the buffers of all TCP sockets together; above it the kernel drops data";
  if (pages.size() < 3) {
    found.value = "unknown";
    return found;
  }
  found.value = mebibytes(pages[2] * page) + " at the most (pressure from " +
                mebibytes(pages[1] * page) + " on)";
  found.enough = pages[2] * page >= kTcpBytes;
  found.raise_to = mebibytes(kTcpBytes);
  std::ostringstream wanted;
  wanted << kTcpBytes / page / 2 << ' ' << kTcpBytes / page * 3 / 4 << ' ' << kTcpBytes / page;
  found.command = "sysctl -w net.ipv4.tcp_mem='" + wanted.str() + "'";
  return found;
}

Limit ports() {
  const auto range = numbers_of("/proc/sys/net/ipv4/ip_local_port_range");
  Limit found;
  found.name = "net.ipv4.ip_local_port_range";
  found.matters_for = "connections that this machine makes to one and the same address";
  if (range.size() < 2) {
    found.value = "unknown";
    return found;
  }
  const std::uint64_t count = range[1] - range[0] + 1;
  found.value = std::to_string(range[0]) + " to " + std::to_string(range[1]) + ": " +
                std::to_string(count) + " ports";
  found.enough = count >= kPorts;
  found.raise_to = "16384 to 65000";
  found.command = "sysctl -w net.ipv4.ip_local_port_range='16384 65000'";
  return found;
}

}  // namespace

std::vector<Limit> find_limits() {
  std::vector<Limit> limits = {
      descriptors(),
      locked_memory(),
      sysctl("net.core.somaxconn", kBacklog,
             "clients that wait to be accepted; a longer backlog is cut to it silently"),
      sysctl("net.ipv4.tcp_max_syn_backlog", 1024, "clients in the middle of the handshake"),
      sysctl("fs.nr_open", kDescriptors, "the highest RLIMIT_NOFILE that can be set"),
      tcp_memory(),
      ports(),
  };
  for (Limit& limit : limits) {
    if (!limit.enough) continue;
    limit.raise_to.clear();
    limit.command.clear();
  }
  return limits;
}

}  // namespace doctor
