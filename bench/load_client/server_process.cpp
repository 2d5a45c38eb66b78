#include "server_process.h"

#include <unistd.h>

#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>

namespace load_client {
namespace {

std::ifstream open_proc(pid_t pid, const char* name) {
  return std::ifstream("/proc/" + std::to_string(pid) + "/" + name);
}

std::chrono::nanoseconds from_ticks(long ticks) {
  static const long per_second = sysconf(_SC_CLK_TCK);
  return std::chrono::nanoseconds(1'000'000'000 / per_second * ticks);
}

}  // namespace

CpuTime operator-(const CpuTime& later, const CpuTime& earlier) {
  return {later.total - earlier.total, later.user - earlier.user, later.system - earlier.system};
}

ServerProcess::ServerProcess(pid_t pid) : pid_(pid) {
  if (clock_getcpuclockid(pid, &clock_) != 0) {
    throw std::runtime_error("no process " + std::to_string(pid) + " (--pid)");
  }
}

CpuTime ServerProcess::cpu_time() const {
  timespec time{};
  if (clock_gettime(clock_, &time) != 0) throw std::runtime_error("the server process has ended");
  CpuTime result;
  result.total = std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);

  std::string line;
  std::getline(open_proc(pid_, "stat") >> std::ws, line);
  // The second field is the program's name in brackets and may hold anything; user time is
  // field 14.
  std::istringstream fields(line.substr(line.rfind(')') + 1));
  std::string skipped;
  for (int field = 3; field < 14; ++field) fields >> skipped;
  long user = 0;
  long system = 0;
  fields >> user >> system;
  result.user = from_ticks(user);
  result.system = from_ticks(system);
  return result;
}

Memory ServerProcess::memory() const {
  Memory memory;
  const auto add_up = [&](const char* file) {
    std::ifstream lines = open_proc(pid_, file);
    std::string line;
    while (std::getline(lines, line)) {
      std::istringstream words(line);
      std::string name;
      long kib = 0;
      if (!(words >> name >> kib)) continue;
      if (name == "VmRSS:") memory.resident_kib = kib;
      if (name == "Pss:") memory.proportional_kib = kib;
      if (name == "Private_Clean:" || name == "Private_Dirty:") memory.private_kib += kib;
    }
  };
  add_up("status");
  add_up("smaps_rollup");
  return memory;
}

}  // namespace load_client
