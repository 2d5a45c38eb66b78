#include <weir/net/server/share.h>
#include <weir/net/server/traffic.h>

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <utility>

namespace weir::detail {
namespace {

/// How long an answer is waited for.
constexpr auto kForOthers = std::chrono::milliseconds(20);

}  // namespace

class TrafficUpdate::Asked {
 public:
  void add() noexcept {
    const std::lock_guard lock(mutex_);
    ++open_;
  }
  void answered() noexcept {
    const std::lock_guard lock(mutex_);
    if (--open_ == 0) all_.notify_all();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    all_.wait_for(lock, kForOthers, [this] { return open_ == 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable all_;
  std::size_t open_ = 0;
};

namespace {

/// Answered when it goes, run or not.
class Question final : public Posted {
 public:
  Question(std::shared_ptr<Share> share, std::shared_ptr<TrafficUpdate::Asked> asked)
      : share_(std::move(share)), asked_(std::move(asked)) {
    asked_->add();
  }
  ~Question() override { asked_->answered(); }
  void run() override { share_->say_traffic(); }

 private:
  std::shared_ptr<Share> share_;
  std::shared_ptr<TrafficUpdate::Asked> asked_;
};

}  // namespace

void Share::say_traffic() noexcept {
  traffic_->in.store(received, std::memory_order_relaxed);
  traffic_->out.store(roster_.sent(), std::memory_order_relaxed);
}

void TrafficUpdate::ask(const ServerCore& core) noexcept {
  try {
    for (const auto& share : core.shares()) {
      LoopGate& gate = share->gate();
      if (gate.is_here()) {
        share->say_traffic();
        continue;
      }
      if (gate.if_idle([&share] { share->say_traffic(); })) continue;
      if (asked_ == nullptr) asked_ = std::make_shared<Asked>();
      (void)gate.post(std::make_unique<Question>(share, asked_));
    }
  } catch (...) {  // short of memory: it stays at what was said before
  }
}

void TrafficUpdate::wait() noexcept {
  if (asked_ != nullptr) asked_->wait();
}

}  // namespace weir::detail
