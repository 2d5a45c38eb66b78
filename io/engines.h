#pragma once

#include <weir/core/engine.h>
#include <weir/core/options.h>

#include <cstddef>
#include <memory>
#include <string>

namespace weir::detail {

/// An engine, or why this machine does not let us have it.
struct EngineOrReason {
  std::unique_ptr<IoEngine> engine;
  int error = 0;       // errno of the refusal
  std::string reason;  // one line: the cause, and what would cure it
};

/// Makes the engine that the options, `WEIR_ENGINE` and this kernel call for. Throws
/// `std::system_error` naming cause and cure, or `std::invalid_argument` naming the option.
std::unique_ptr<IoEngine> make_engine(const LoopOptions& options);

/// In how many ways a ring is set up: for the newest kernels first, for those of 6.0 last.
inline constexpr std::size_t kUringSetups = 3;

/// Gives a reason where io_uring is refused or lacks what weir needs; throws `std::system_error`
/// where the process is out of descriptors, which is no refusal. A test may forgo the first ways of
/// setting a ring up, as an older kernel does.
EngineOrReason make_uring_engine(const LoopOptions& options, std::size_t first_setup = 0);

/// Every kernel has it. Throws `std::system_error` where the process is out of descriptors.
std::unique_ptr<IoEngine> make_epoll_engine(const LoopOptions& options);

/// Throws `std::system_error` with this text, or with one that says that no descriptor is left.
[[noreturn]] void refuse_engine(int error, const char* what);

/// What the refusal of an io_uring call means on this machine: the cause, and what would cure it.
std::string explain_uring_refusal(int error);

/// What `make_engine` would make, and why; for people.
struct EngineChoice {
  std::string name;  // as of `IoEngine::name`; empty if it would throw
  std::string why;
};
EngineChoice choose_engine(const LoopOptions& options = {});

}  // namespace weir::detail
