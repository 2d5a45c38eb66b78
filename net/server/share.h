#pragma once

#include <weir/core/event_loop.h>
#include <weir/coro/task_group.h>
#include <weir/net/connection.h>
#include <weir/net/server/core.h>
#include <weir/net/server/intake.h>
#include <weir/net/server/loop_gate.h>
#include <weir/net/server/roster.h>
#include <weir/net/server/traffic.h>
#include <weir/net/server/welcome.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

namespace weir::detail {

/// A server's part on one loop: the acceptors, connections and handlers there. Loop's thread only,
/// but where it says otherwise.
class Share final : public ConnectionOwner,
                    public LoopResource,
                    public std::enable_shared_from_this<Share> {
 public:
  /// With shares to hand out to it accepts for those, and serves nobody itself.
  Share(std::shared_ptr<ServerCore> core, EventLoop& loop, ServerCore::Shares hand_out_to = {});
  ~Share();
  /// Once it is shared: makes what is needed when there may be no memory.
  void prepare();

  /// A connection that is counted among a loop's, from when it is handed out to its end. Given back
  /// by who has it, or by `forget`. From any thread.
  class Place {
   public:
    explicit Place(Share& share) noexcept : share_(&share) {
      share.load_.fetch_add(1, std::memory_order_relaxed);
    }
    Place(Place&& other) noexcept : share_(std::exchange(other.share_, nullptr)) {}
    Place& operator=(Place&&) = delete;
    ~Place() {
      if (share_ != nullptr) give_back(*share_);
    }
    void keep() noexcept { share_ = nullptr; }
    static void give_back(Share& share) noexcept {
      share.load_.fetch_sub(1, std::memory_order_relaxed);
    }

   private:
    Share* share_;
  };

  /// Calls the handler, if the limits admit the connection. Short of memory, it resets it.
  void serve(Socket socket, Place place, TimePoint accepted);

  /// Stops listening: whoever the kernel has accepted already, or accepts before it lets go, is
  /// still served. On another loop's thread, it has the loop do that. Needs no memory.
  void begin_drain() noexcept;
  /// The end: accepts nobody any more, and resets the connections, so many in one turn that others
  /// do not notice.
  void cut() noexcept;
  /// Has the loop do that. From any thread; needs no memory.
  void stop() noexcept;
  /// The same, and leaves the loop: what a handler sent before it ended still goes out.
  void tear_down() noexcept;

  /// What became of the connections so far.
  struct Tally {
    std::size_t finished = 0;  // not cut off
    std::size_t forced = 0;

    Tally& operator+=(const Tally& other) noexcept {
      finished += other.finished;
      forced += other.forced;
      return *this;
    }
  };
  /// From any thread.
  [[nodiscard]] Tally tally() const noexcept { return {finished_, forced_}; }

  [[nodiscard]] ServerCore& core() const noexcept { return *core_; }
  [[nodiscard]] LoopGate& gate() noexcept { return gate_; }
  [[nodiscard]] Intake& intake() noexcept { return intake_; }
  [[nodiscard]] Roster& roster() noexcept { return roster_; }
  /// Torn down.
  [[nodiscard]] bool is_closed() const noexcept { return closed_; }
  /// Connections here, and on their way. From any thread.
  [[nodiscard]] std::size_t load() const noexcept { return load_.load(std::memory_order_relaxed); }
  /// Runs beside the handlers, to the end of the share.
  void begin(Task<> task);

  /// Says what has come and gone so far, for `metrics`. Loop's thread, or while the loop stands.
  void say_traffic() noexcept;

  void connection_closed(Connection& stream) noexcept override;
  [[nodiscard]] std::string_view owner_name() const noexcept override;
  void met_tls(Connection& stream) noexcept override;
  [[nodiscard]] Event& draining(bool used) noexcept override {
    return used ? draining_ : draining_unused_;
  }
  void end_with_loop() noexcept override;
  bool finish_with_run() noexcept override;
  void describe(LoopReport& report) const override;
  bool write_handled(LogLine& to, const Scope& running) const noexcept override;

 private:
  class Handlers;

  Connection* adopt(Socket socket, Place place);
  void go_on_cutting() noexcept;
  void cut_until(TimePoint until) noexcept;
  void forget(Connection& stream) noexcept;
  void let_go(Connection& stream) noexcept;

  const std::shared_ptr<ServerCore> core_;
  LoopGate gate_;
  Intake intake_;
  std::atomic<std::size_t> load_{0};
  std::unique_ptr<Posted> drain_note_;  // made beforehand, as is this:
  std::unique_ptr<Posted> stop_note_;

  Roster roster_;
  const std::shared_ptr<Traffic> traffic_ = std::make_shared<Traffic>();
  Walker cutting_;  // where a cut has come to
  std::atomic<std::size_t> finished_{0};
  std::atomic<std::size_t> forced_{0};
  Event draining_;  // they go after those who wait for them
  Event draining_unused_;
  Welcome welcome_;  // goes after the handlers
  std::unique_ptr<Handlers> handlers_;
  std::optional<TaskGroup> tasks_;
  bool cut_ = false;
  bool closed_ = false;
  bool loop_ends_ = false;
};

}  // namespace weir::detail
