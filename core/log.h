#pragma once

#include <memory>
#include <string_view>

namespace spdlog {
class logger;
}

namespace weir::log {

/// Where the library's messages go; from any thread. The default writes to stderr, from level info
/// on; an empty pointer silences the library. Level and format are the logger's.
void set_logger(std::shared_ptr<spdlog::logger> logger);

enum class Level { debug, info, warning, error };

/// Whether a message of this level would be written; asked before a costly one is put together.
bool enabled(Level level) noexcept;

/// One line. What comes from a peer must be escaped by the caller.
void write(Level level, std::string_view message) noexcept;

/// Takes the messages of one thread in place of the logger.
class Tap {
 public:
  virtual void take(Level level, std::string_view message) noexcept = 0;

 protected:
  ~Tap() = default;
};

/// For the calling thread; nullptr: the logger again. Gives what was there before.
Tap* set_thread_tap(Tap* tap) noexcept;

}  // namespace weir::log
