#pragma once

#include <weir/coro/scheduler.h>

#include <chrono>
#include <memory>
#include <string>
#include <string_view>

namespace spdlog {
class logger;
}

namespace weir::detail {
/// See `logging::flush`.
bool flush_log(Duration limit) noexcept;
}  // namespace weir::detail

/// The library's messages. A line waits in a queue of 256 KiB for a thread that starts with the
/// first one and hands it to the logger, so that no loop waits for a file, terminal or pipe. Where
/// lines come faster than the logger takes them, the oldest are lost, and their number is said.
namespace weir::logging {

/// Where the lines go; from any thread. It is called from the log's thread, one line at a time,
/// with the time at which the line was written; level and format are the logger's. The default
/// writes to stderr, from level info on, but not if stderr was closed when the program began; an
/// empty pointer silences the library. The one before gets what was written before, is flushed, and
/// is not called any more when this returns; it is waited for two seconds at the most.
void set_logger(std::shared_ptr<spdlog::logger> logger);

/// text: a line as it is, with the task's context in front in brackets. json: an object of JSON
/// (RFC 8259) in one line, with "time" (UTC, RFC 3339), "level", "loop", "thread" (the kernel's
/// number), "connection" (of the handler that wrote it), "context" and "message", each where there
/// is one; what is no UTF-8 is replaced. What is too long is cut in the message.
enum class Format { text, json };

/// How lines written from here on look; from any thread. A logger's own pattern stays, and should
/// be
/// "%v" for json; the default logger's is then. What lines are written, the logger's level decides.
void set_format(Format format) noexcept;

enum class Level { debug, info, warning, error };

/// Whether a message of this level would be written; asked before a costly one is put together.
bool enabled(Level level) noexcept;

/// One line, of up to 8 KiB; what is above is cut off. From any thread; neither waits nor
/// allocates. What comes from a peer must be escaped by the caller.
void write(Level level, std::string_view message) noexcept;

/// What lines of the current task begin with from here on, in brackets: after
/// `set_context("request=42")` they read "[request=42] …", those that it writes and those that the
/// library writes while it runs, about what left its handler too. Empty: nothing. It goes with the
/// task as a `TaskLocal` does (<weir/coro/task_local.h>): what is awaited has it too and may change
/// it, what is spawned, sent to `on` or to `blocking` begins with it, a server's handler begins
/// with none. A line has it as it was when the line was written. Up to 1 KiB, what is above is cut
/// off; control characters are escaped. Throws `std::logic_error` where no task runs, and
/// `std::bad_alloc`.
void set_context(std::string_view text);

/// As it is now; empty where no task runs. For lines that go another way.
std::string context();

/// Waits until the logger has taken what was written so far, and flushes it. False if that took
/// longer than `limit`, or on the log's own thread. An exit of the process does it by itself, for a
/// second at the most; what ends it otherwise (`_exit`, a signal) may lose the last lines.
template <class Rep, class Period>
bool flush(std::chrono::duration<Rep, Period> limit) noexcept {
  return detail::flush_log(detail::to_duration(limit));
}

}  // namespace weir::logging

namespace weir::detail {

/// Takes the messages of one thread in place of the log, at once.
class LogTap {
 public:
  virtual void take(logging::Level level, std::string_view message) noexcept = 0;

 protected:
  ~LogTap() = default;
};

/// For the calling thread; nullptr: the log again. Gives what was there before.
LogTap* set_log_tap(LogTap* tap) noexcept;

}  // namespace weir::detail
