// CPU time and memory of the server, read from outside.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <ctime>

namespace load_client {

struct CpuTime {
  std::chrono::nanoseconds total{};  // the process clock: user and system, all threads
  // The same split in two, but only as fine as the kernel's ticks (10 ms).
  std::chrono::nanoseconds user{};
  std::chrono::nanoseconds system{};
};

CpuTime operator-(const CpuTime& later, const CpuTime& earlier);

struct Memory {
  long resident_kib = 0;
  long proportional_kib = 0;  // shared pages divided among their users
  long private_kib = 0;
};

class ServerProcess {
 public:
  explicit ServerProcess(pid_t pid);  // throws if there is no such process
  CpuTime cpu_time() const;
  Memory memory() const;

 private:
  pid_t pid_;
  clockid_t clock_;
};

}  // namespace load_client
