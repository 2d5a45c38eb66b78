#pragma once

#include <weir/core/engine.h>
#include <weir/core/options.h>

#include <memory>
#include <string>

namespace weir {

/// An engine, or why this machine does not let us have it.
struct EngineOrReason {
  std::unique_ptr<IoEngine> engine;
  int error = 0;       // errno of the refusal
  std::string reason;  // one line: the cause, and what would cure it
};

/// Gives a reason where io_uring is refused or lacks what weir needs; throws `std::system_error`
/// where the process is out of descriptors, which is no refusal.
EngineOrReason make_uring_engine(const LoopOptions& options);

/// Every kernel has it. Throws `std::system_error` where the process is out of descriptors.
std::unique_ptr<IoEngine> make_epoll_engine(const LoopOptions& options);

/// What the refusal of an io_uring call means on this machine: the cause, and what would cure it.
std::string explain_uring_refusal(int error);

/// What `make_engine` would make, and why; for people.
struct EngineChoice {
  std::string name;  // as of `IoEngine::name`; empty if it would throw
  std::string why;
};
EngineChoice choose_engine(const LoopOptions& options = {});

}  // namespace weir
