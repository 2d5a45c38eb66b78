#include <weir/core/assert.h>
#include <weir/core/log.h>

#include <spdlog/logger.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <utility>

namespace weir {
namespace log {
namespace {

std::shared_ptr<spdlog::logger> make_default() {
  auto sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  auto logger = std::make_shared<spdlog::logger>("weir", std::move(sink));
  logger->set_pattern("%Y-%m-%d %H:%M:%S.%e [%n] [%l] %v");
  logger->set_level(spdlog::level::info);
  logger->flush_on(spdlog::level::trace);
  return logger;
}

/// Never destroyed: other objects of static duration may log in their destructors.
struct Current {
  std::mutex mutex;
  std::shared_ptr<spdlog::logger> logger = make_default();
};

Current& current() {
  static auto* instance = new Current;
  return *instance;
}

std::shared_ptr<spdlog::logger> logger() {
  Current& state = current();
  const std::lock_guard lock(state.mutex);
  return state.logger;
}

spdlog::level::level_enum translate(Level level) noexcept {
  switch (level) {
    case Level::debug:
      return spdlog::level::debug;
    case Level::info:
      return spdlog::level::info;
    case Level::warning:
      return spdlog::level::warn;
    case Level::error:
      break;
  }
  return spdlog::level::err;
}

constinit thread_local Tap* thread_tap = nullptr;

}  // namespace

Tap* set_thread_tap(Tap* tap) noexcept { return std::exchange(thread_tap, tap); }

void set_logger(std::shared_ptr<spdlog::logger> logger) {
  Current& state = current();
  const std::lock_guard lock(state.mutex);
  state.logger = std::move(logger);
}

bool enabled(Level level) noexcept {
  if (thread_tap != nullptr) return true;
  const auto target = logger();
  return target != nullptr && target->should_log(translate(level));
}

void write(Level level, std::string_view message) noexcept {
  if (thread_tap != nullptr) {
    thread_tap->take(level, message);
    return;
  }
  try {
    if (const auto target = logger()) {
      target->log(translate(level), spdlog::string_view_t(message.data(), message.size()));
    }
  } catch (...) {
    // A message that cannot be written has nobody to be reported to.
  }
}

}  // namespace log

void assertion_failed(const char* condition, const char* file, int line) noexcept {
  std::fprintf(stderr, "weir: assertion failed: %s (%s:%d); please report this\n", condition, file,
               line);
  std::abort();
}

}  // namespace weir
