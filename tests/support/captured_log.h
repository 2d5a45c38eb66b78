#pragma once

#include <weir/core/logging.h>

#include <doctest/doctest.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/base_sink.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace weir::test {

/// Takes the library's messages to itself for its life; after it the library is silent in tests.
class CapturedLog {
 public:
  /// Of stalls it takes none: on a busy machine any loop has them. Nor that io_uring is refused,
  /// which the first loop says where it is.
  CapturedLog() : CapturedLog(false) {}
  static CapturedLog with_stalls() { return CapturedLog(true); }
  CapturedLog(const CapturedLog&) = delete;
  CapturedLog& operator=(const CapturedLog&) = delete;
  ~CapturedLog() { logging::set_logger(nullptr); }

  /// All that was written so far.
  [[nodiscard]] std::vector<std::string> lines() const {
    CHECK(logging::flush(std::chrono::minutes(2)));
    return sink_->lines();
  }

  /// How many of them were errors.
  [[nodiscard]] long errors() const {
    CHECK(logging::flush(std::chrono::minutes(2)));
    return sink_->errors;
  }

  /// How many lines hold the text.
  [[nodiscard]] long count(std::string_view text) const {
    const auto all = lines();
    return std::count_if(all.begin(), all.end(), [text](const std::string& line) {
      return line.find(text) != std::string::npos;
    });
  }

 private:
  explicit CapturedLog(bool stalls) : sink_(std::make_shared<Sink>(stalls)) {
    auto logger = std::make_shared<spdlog::logger>("weir", sink_);
    logger->set_level(spdlog::level::trace);
    logger->set_pattern("%l: %v");
    logging::set_logger(std::move(logger));
  }

  class Sink final : public spdlog::sinks::base_sink<std::mutex> {
   public:
    explicit Sink(bool stalls) : stalls_(stalls) {}
    std::atomic<long> errors{0};

    std::vector<std::string> lines() {
      const std::lock_guard lock(mutex_);
      return lines_;
    }

   private:
    void sink_it_(const spdlog::details::log_msg& message) override {
      const std::string_view text(message.payload.data(), message.payload.size());
      if (text.find("using epoll, since ") != std::string_view::npos) return;
      if (!stalls_ && (text.starts_with("stall: ") || text.ends_with("stalls of event loops")))
        return;
      if (message.level >= spdlog::level::err) ++errors;
      lines_.emplace_back(message.payload.data(), message.payload.size());
    }
    void flush_() override {}
    const bool stalls_;
    std::vector<std::string> lines_;
  };

  std::shared_ptr<Sink> sink_;
};

}  // namespace weir::test
