#include "processes.h"

#include <weir/net/socket_address.h>

#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <utility>

#include "json.h"

namespace look {
namespace {

namespace fs = std::filesystem;

/// How the inspector's own thread is called (proc(5), /proc/PID/task/TID/comm).
constexpr std::string_view kThread = "weir-inspect";

std::string content_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();  // its process may end meanwhile, which an iterator would throw
  return text.str();
}

std::string link_of(const fs::path& path) {
  std::error_code ignored;
  return fs::read_symlink(path, ignored).string();
}

std::string name_of(const fs::path& proc) {
  std::string name = content_of(proc / "comm");
  if (name.ends_with('\n')) name.pop_back();
  return harmless(name);
}

/// Calls the function with each entry's path until it gives true; throws what opening throws.
template <class Function>
bool any_entry(const fs::path& directory, Function function) {
  std::error_code ended;  // what the process does meanwhile is its own business
  for (fs::directory_iterator entry(directory), end; entry != end; entry.increment(ended)) {
    if (ended) break;
    if (function(entry->path())) return true;
  }
  return false;
}

bool has_inspector_thread(const fs::path& proc) {
  return any_entry(proc / "task", [](const fs::path& task) { return name_of(task) == kThread; });
}

/// The numbers of its open sockets.
std::set<std::uint64_t> sockets_of(const fs::path& proc) {
  std::set<std::uint64_t> numbers;
  any_entry(proc / "fd", [&](const fs::path& fd) {
    static constexpr std::string_view kMark = "socket:[";
    const std::string target = link_of(fd);
    std::uint64_t number = 0;
    if (target.starts_with(kMark)) {
      std::from_chars(target.data() + kMark.size(), target.data() + target.size(), number);
      numbers.insert(number);
    }
    return false;
  });
  return numbers;
}

std::vector<std::string> words_of(const std::string& line) {
  std::istringstream stream(line);
  return {std::istream_iterator<std::string>(stream), std::istream_iterator<std::string>()};
}

std::uint64_t hex(std::string_view digits) noexcept {
  std::uint64_t value = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
  return value;
}

/// The path of a Unix socket as this process can use it.
std::string own_path(const fs::path& proc, const std::string& path) {
  if (path.starts_with('@')) return path;
  const fs::path whole =
      path.starts_with('/') ? fs::path(path) : link_of(proc / "cwd") / fs::path(path);
  const bool same = link_of(proc / "ns/mnt") == link_of("/proc/self/ns/mnt");
  return same ? whole.string() : (proc / "root").string() + whole.string();
}

/// Lines of /proc/PID/net/unix: number, references, protocol, flags, type, state, inode, path.
void add_unix(const fs::path& proc, const std::set<std::uint64_t>& sockets,
              std::vector<std::string>& found) {
  constexpr std::uint64_t kListens = 1 << 16;  // __SO_ACCEPTCON
  std::istringstream lines(content_of(proc / "net/unix"));
  for (std::string line; std::getline(lines, line);) {
    const std::vector<std::string> words = words_of(line);
    if (words.size() < 8 || (hex(words[3]) & kListens) == 0) continue;
    std::uint64_t number = 0;
    std::from_chars(words[6].data(), words[6].data() + words[6].size(), number);
    if (sockets.count(number) == 0) continue;
    const std::size_t path = line.find(' ' + words[6] + ' ') + words[6].size() + 2;
    found.push_back("unix:" + own_path(proc, line.substr(path)));
  }
}

/// "0100007F:1F90" or its like of IPv6: words in the order of this machine's bytes, and the port.
std::string ip_address(const std::string& text) {
  const std::size_t colon = text.find(':');
  std::array<unsigned, 16> bytes{};
  const std::size_t size = colon / 2;
  if (colon == std::string::npos || (size != 4 && size != 16)) return {};
  for (std::size_t word = 0; word < size; word += 4) {
    const auto value = static_cast<std::uint32_t>(hex(std::string_view(text).substr(2 * word, 8)));
    const auto* const raw = reinterpret_cast<const unsigned char*>(&value);
    std::copy_n(raw, 4, bytes.begin() + static_cast<std::ptrdiff_t>(word));
  }
  // One that is bound to any address is met at this machine's own.
  if (std::all_of(bytes.begin(), bytes.end(), [](unsigned byte) { return byte == 0; })) {
    bytes[size == 4 ? 0 : 15] = size == 4 ? 127 : 1;
    if (size == 4) bytes[3] = 1;
  }
  std::ostringstream address;
  if (size == 4) {
    address << bytes[0] << '.' << bytes[1] << '.' << bytes[2] << '.' << bytes[3];
  } else {
    address << '[' << std::hex;
    for (std::size_t i = 0; i < size; i += 2) {
      address << (i > 0 ? ":" : "") << (bytes[i] << 8 | bytes[i + 1]);
    }
    address << ']' << std::dec;
  }
  address << ':' << hex(std::string_view(text).substr(colon + 1));
  return address.str();
}

/// Lines of /proc/PID/net/tcp: number, local and remote address, state, …, and the tenth the inode.
void add_tcp(const fs::path& file, const std::set<std::uint64_t>& sockets,
             std::vector<std::string>& found) {
  std::istringstream lines(content_of(file));
  for (std::string line; std::getline(lines, line);) {
    const std::vector<std::string> words = words_of(line);
    if (words.size() < 10 || words[3] != "0A") continue;  // listens
    std::uint64_t number = 0;
    std::from_chars(words[9].data(), words[9].data() + words[9].size(), number);
    if (sockets.count(number) != 0) found.push_back(ip_address(words[1]));
  }
}

std::string canonical(const std::string& address) {
  try {
    return weir::SocketAddress::parse(address).to_string();
  } catch (const std::exception&) {
    return address;
  }
}

/// What WEIR_INSPECT said when the process began; nothing if it did not.
std::string wished_address(const fs::path& proc) {
  static constexpr std::string_view kName = "WEIR_INSPECT=";
  const std::string environment = content_of(proc / "environ");
  for (std::size_t at = 0; at < environment.size();) {
    const std::size_t end = std::min(environment.find('\0', at), environment.size());
    const std::string entry = environment.substr(at, end - at);
    if (entry.starts_with(kName)) {
      std::string address = entry.substr(kName.size());
      if (address.starts_with("unix:")) address = "unix:" + own_path(proc, address.substr(5));
      return address;
    }
    at = end + 1;
  }
  return {};
}

std::vector<std::string> addresses_of(const fs::path& proc) {
  const std::set<std::uint64_t> sockets = sockets_of(proc);
  std::vector<std::string> found;
  add_unix(proc, sockets, found);
  if (link_of(proc / "ns/net") == link_of("/proc/self/ns/net")) {
    add_tcp(proc / "net/tcp", sockets, found);
    add_tcp(proc / "net/tcp6", sockets, found);
  }
  for (std::string& address : found) address = canonical(address);
  const std::string wished = canonical(wished_address(proc));
  if (const auto at = std::find(found.begin(), found.end(), wished); at != found.end()) {
    return {wished};
  }
  return found;
}

}  // namespace

Process process_with_inspector(int pid) {
  const fs::path proc = "/proc/" + std::to_string(pid);
  const std::string number = std::to_string(pid);
  std::error_code failed;
  if (!fs::exists(proc, failed)) throw std::runtime_error("there is no process " + number);
  Process process{pid, name_of(proc), {}};
  const std::string who = "process " + number + " (" + process.name + ")";
  bool has_one = false;
  try {
    has_one = has_inspector_thread(proc);
    if (has_one) process.addresses = addresses_of(proc);
  } catch (const fs::filesystem_error& error) {
    if (error.code() == std::errc::permission_denied) {
      throw std::runtime_error(who + " is another user's: look at it as that user, or as root");
    }
    throw std::runtime_error("process " + number + " has ended");
  }
  if (!has_one) {
    throw std::runtime_error(who +
                             " has no inspector: start it with WEIR_INSPECT=unix:/path in its "
                             "environment, or make a weir::Inspector in it");
  }
  if (process.addresses.empty()) {
    throw std::runtime_error(who +
                             " has an inspector that listens in another network namespace: "
                             "nsenter --net --target " +
                             number + " brings you there");
  }
  return process;
}

std::vector<Process> processes_with_inspectors(std::size_t& unseen) {
  std::vector<Process> processes;
  unseen = 0;
  any_entry("/proc", [&](const fs::path& proc) {
    int pid = 0;
    const std::string name = proc.filename();
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (error != std::errc() || end != name.data() + name.size() || pid == ::getpid()) return false;
    try {
      if (!has_inspector_thread(proc)) return false;
      processes.push_back({pid, name_of(proc), addresses_of(proc)});
    } catch (const fs::filesystem_error& failure) {
      if (failure.code() == std::errc::permission_denied) ++unseen;
    }
    return false;
  });
  std::sort(processes.begin(), processes.end(),
            [](const Process& a, const Process& b) { return a.pid < b.pid; });
  return processes;
}

}  // namespace look
