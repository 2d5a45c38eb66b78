#pragma once

#include <weir/core/thread_view.h>

#include <sys/types.h>

#include <csignal>

namespace weir::detail {

/// What a thread of this process does: what the kernel says of it (proc(5)), its stack, and where
/// the task of a loop that it runs awaited last.
///
/// The last two the thread has to tell itself. It is sent a signal for that: one of the real-time
/// ones that nobody has a handler for and that it does not block, whose action is the default one
/// again behind it. A thread that waits in a system call which a signal would end (signal(7):
/// nanosleep, poll and others do not go on behind a handler, whatever its flags) is not sent any,
/// nor one that has not answered the last, nor one that a debugger traces. Waits some 50 ms for an
/// answer at the most. On any other thread, one at a time. Throws `std::bad_alloc`.
[[nodiscard]] ThreadView look_at_thread(pid_t thread);

/// For a thread of the library's that is to block `all` signals, made by one that blocks those of
/// `before`: leaves out one by which it can be asked, if there is one that nobody uses.
void let_be_asked(sigset_t& all, const sigset_t& before) noexcept;

}  // namespace weir::detail
