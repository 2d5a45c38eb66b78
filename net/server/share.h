#pragma once

#include <weir/core/event_loop.h>
#include <weir/coro/task_group.h>
#include <weir/net/acceptor.h>
#include <weir/net/connection.h>
#include <weir/net/handshake.h>
#include <weir/net/server/core.h>
#include <weir/net/server/traffic.h>
#include <weir/net/server/walk.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

namespace weir::detail {

class LogLine;

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

  /// Has the loop do that. From any thread; false once the share is being torn down. What was
  /// posted before is done, or is deleted when the loop ends.
  bool post(std::unique_ptr<Posted> work);
  template <class Function>
  bool post_function(Function function) {
    return post(std::make_unique<PostedFunction<Function>>(std::move(function)));
  }

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

  void accept_with(Acceptor acceptor);
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

  /// Begins a walk, or goes on with it, until it is through (true) or the time is over.
  bool visit(Walk& walk, TimePoint until);

  /// What a successor is to inherit.
  void list_listeners(std::vector<int>& descriptors) const;

  [[nodiscard]] EventLoop& loop() const noexcept { return loop_; }
  /// It has connections, rather than to hand them out.
  [[nodiscard]] bool serves() const noexcept { return !hands_out_; }
  /// Whether another thread runs its loop now; nothing if it is being torn down. From any thread.
  [[nodiscard]] std::optional<bool> runs_elsewhere() const;
  /// Whether this thread runs its loop, which may have gone.
  [[nodiscard]] bool is_here() const noexcept { return EventLoop::current_or_null() == &loop_; }
  /// Torn down, and its loop may have ended. From any thread.
  [[nodiscard]] bool gone() const;

  /// A connection's name, or as much of it as is known yet and there is memory for. A search
  /// through all of them: for some failures only.
  void write_name(LogLine& line, std::uint64_t id) const noexcept;

  /// Says what has come and gone so far, for `metrics`. Loop's thread, or while the loop stands.
  void say_traffic() noexcept;
  /// The same, unless another thread runs the loop: false. From any thread.
  bool say_traffic_from_here() noexcept;

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
  struct InTransit;

  void begin(Task<> task);
  static Task<> accept_all(std::shared_ptr<Share> self, std::size_t index);
  void hand_out(Socket socket);
  [[nodiscard]] const std::shared_ptr<Share>& next_to_serve() noexcept;
  Connection* adopt(Socket socket, Place place);
  void begin_cut() noexcept;
  void go_on_cutting() noexcept;
  void cut_until(TimePoint until) noexcept;
  void cut_connections(std::uint64_t last) noexcept;
  void handler_failed(const std::exception_ptr& failure, std::uint64_t id) noexcept;
  void cannot_start(Socket socket, const std::exception_ptr& failure) noexcept;
  void forget(Connection& stream) noexcept;
  void let_go(Connection& stream) noexcept;
  void stop_listening() noexcept;
  void send(std::unique_ptr<Posted>& note) noexcept;
  Task<> tell_unused();
  Task<> first_task(TcpConnection connection, TimePoint accepted);
  void note_wait(TimePoint accepted) noexcept;
  Task<> serve_for_proxy(TcpConnection connection, TimePoint accepted);
  [[nodiscard]] bool welcomes(Connection& stream, const SocketAddress& client);
  Task<> serve_securely(TcpConnection connection, TimePoint accepted);
  /// Ends those of which nothing was seen for so many rounds.
  using Rounds = unsigned (Connection::*)() noexcept;
  Task<> end_overdue(std::chrono::milliseconds limit, Rounds rounds, int error, bool with_reset);

  const std::shared_ptr<ServerCore> core_;
  EventLoop& loop_;
  const std::shared_ptr<Mailbox> mailbox_;  // outlives the loop
  const bool hands_out_;
  ServerCore::Shares hand_out_to_;
  std::size_t next_ = 0;              // of those
  std::atomic<std::size_t> load_{0};  // connections here, and on their way
  mutable std::mutex gate_;
  bool open_ = true;
  bool gone_ = false;
  std::unique_ptr<Posted> drain_note_;  // made beforehand, as is this:
  std::unique_ptr<Posted> stop_note_;

  List<Connection> streams_;  // in place of the loop's list
  List<Connection> ended_;    // closed, but a handler has them yet
  std::size_t stream_count_ = 0;
  std::uint64_t sent_by_ended_ = 0;  // bytes, on connections that are not here any more
  const std::shared_ptr<Traffic> traffic_ = std::make_shared<Traffic>();
  List<Walk> walks_;
  Walk cutting_;  // where a cut has come to
  std::atomic<std::size_t> finished_{0};
  std::atomic<std::size_t> forced_{0};
  Event draining_;  // they go after those who wait for them
  Event draining_unused_;
  std::unique_ptr<HandshakeGate> gate_of_handshakes_;  // goes after the handlers
  std::unique_ptr<Handlers> handlers_;
  std::optional<TaskGroup> tasks_;
  std::vector<Acceptor> acceptors_;
  bool cut_ = false;
  bool closed_ = false;
  bool loop_ends_ = false;
};

}  // namespace weir::detail
