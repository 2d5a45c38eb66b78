#pragma once

#include <weir/core/engine.h>
#include <weir/io/random.h>
#include <weir/io/sim/address.h>
#include <weir/io/sim/faults.h>
#include <weir/io/sim/options.h>
#include <weir/io/sim/tape.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace weir::sim::detail {

class Endpoint;
class Kernel;

using weir::detail::Random;

/// What happens, for people and for the trace hash.
struct Record {
  static constexpr std::uint32_t kNobody = 0xffffffff;

  TimePoint at{};
  const char* what = "";
  int fd = -1;
  std::int64_t value = 0;
  std::string text = {};
  std::uint32_t loop = 0;        // in whose turn; 0: in none's
  std::uint32_t from = kNobody;  // host that sent the segment
  TimePoint sent{};              // when
};

/// What happened on which host, all of it.
using Log = std::vector<std::pair<std::size_t, Record>>;

/// How often what happened, on which host.
using EventCounts = std::map<std::pair<std::size_t, std::string>, std::uint64_t>;

/// Time, randomness, machines and what is between them.
class Network {
 public:
  explicit Network(const WorldOptions& options);
  ~Network();

  [[nodiscard]] TimePoint now() const noexcept { return now_; }
  /// The event happens then, behind those that were arranged before for the same time.
  void schedule(TimePoint at, std::function<void()> event);
  /// One event. False if there is none.
  bool step();
  [[nodiscard]] bool empty() const noexcept { return events_.empty(); }
  [[nodiscard]] TimePoint next() const noexcept;
  void advance_to(TimePoint to) noexcept {
    if (to > now_) now_ = to;
  }

  std::size_t add_machine();
  [[nodiscard]] Kernel& kernel(std::size_t host) noexcept { return *kernels_[host]; }
  [[nodiscard]] Kernel* find_machine(const Address& address) noexcept;
  [[nodiscard]] bool is_taken(const Address& address) const noexcept;

  void set_link(std::size_t from, std::size_t to, const Link& link);
  [[nodiscard]] const Link& link(std::size_t from, std::size_t to) const;
  void cut(std::size_t from, std::size_t to);
  void mend(std::size_t from, std::size_t to);
  [[nodiscard]] bool is_cut(std::size_t from, std::size_t to) const;
  [[nodiscard]] bool reaches(std::size_t from, std::size_t to) noexcept;
  /// Connections that notice nothing by themselves are asked after a while whether they live.
  void probe_later(std::size_t host);
  void watch(const std::shared_ptr<Endpoint>& endpoint);

  /// When a segment that leaves now arrives.
  TimePoint arrival(std::size_t from, std::size_t to, std::size_t bytes);

  /// Whether this fault hits now on this machine.
  bool hit(Fault fault, std::size_t host);
  void inject(Fault fault, std::size_t host, std::size_t times);
  /// How much of it, 0 to `limit` - 1: to be asked after each time that it may have hit. It counts
  /// only if it has.
  std::uint64_t extent(Fault fault, std::size_t host, bool has_hit, std::uint64_t limit) {
    const std::uint64_t drawn = shapes_.below(limit);
    if (tape_ == nullptr || !has_hit) [[likely]]
      return drawn;
    return tape_->extent_of(fault, host, drawn, limit, now_);
  }
  /// Whether the user's code does what it rarely does.
  bool buggify(double probability, std::size_t host);
  /// From now on nothing goes wrong.
  void stop_faults();

  /// For its own life what happens is counted.
  class Counted {
   public:
    Counted(Network& network, EventCounts& counts) noexcept : network_(network) {
      network.counts_ = &counts;
    }
    Counted(const Counted&) = delete;
    Counted& operator=(const Counted&) = delete;
    ~Counted() { network_.counts_ = nullptr; }

   private:
    Network& network_;
  };
  [[nodiscard]] std::uint64_t hits(Fault fault) const noexcept {
    return hits_[static_cast<std::size_t>(fault)];
  }

  /// The order of what happens at once.
  std::uint64_t order(std::size_t host) {
    const std::uint64_t drawn = scheduling_.next() >> 1;
    if (tape_ == nullptr) [[likely]]
      return drawn;
    return tape_->choose(ChoiceKind::order, host, 0, drawn, ++in_order_, now_);
  }
  std::uint64_t port(std::size_t host, std::uint64_t count) {
    return choose(ChoiceKind::port, host, 0, ports_.below(count), 0);
  }
  /// What was drawn, or what the tape of this world has in its place.
  std::uint64_t choose(ChoiceKind kind, std::size_t from, std::size_t to, std::uint64_t drawn,
                       std::uint64_t usual) {
    if (tape_ == nullptr) [[likely]]
      return drawn;
    return tape_->choose(kind, from, to, drawn, usual, now_);
  }
  /// Before anything happens. The tape outlives this.
  void use(Tape* tape) noexcept { tape_ = tape; }
  [[nodiscard]] const Tape* tape() const noexcept { return tape_; }
  [[nodiscard]] std::uint64_t seed_of(std::uint64_t stream) const noexcept;

  void trace(std::size_t host, const char* what, int fd, std::int64_t value);
  void note(std::size_t host, const char* what, std::string text);
  /// A segment that has arrived.
  void trace_segment(std::size_t host, const char* what, int port, std::int64_t value,
                     std::span<const std::byte> bytes, std::size_t from, TimePoint sent);
  /// The loop whose turn it is from now on; gives the one before.
  std::uint32_t enter_loop(std::uint32_t loop) noexcept { return std::exchange(loop_, loop); }
  /// All that happened since this was first called, and what the histories had before.
  const Log& keep_log();
  [[nodiscard]] std::uint64_t hash() const noexcept { return hash_; }
  [[nodiscard]] const std::deque<Record>& history(std::size_t host) const {
    return histories_[host];
  }

  [[nodiscard]] const WorldOptions& options() const noexcept { return options_; }

  std::size_t leases_left = 0;  // of engines that have gone

 private:
  struct Event {
    TimePoint at;
    std::uint64_t sequence;
    std::function<void()> run;
    friend bool operator<(const Event& a, const Event& b) noexcept {
      return a.at != b.at ? a.at > b.at : a.sequence > b.sequence;
    }
  };
  struct Wire {
    Link link;
    bool is_cut = false;
    TimePoint busy_until{};
  };
  Wire& wire(std::size_t from, std::size_t to);
  void mix(std::uint64_t value) noexcept;
  void mix_event(std::size_t host, const char* what, int fd, std::int64_t value,
                 std::span<const std::byte> bytes);
  void remember(std::size_t host, Record&& record);

  WorldOptions options_;
  TimePoint now_;
  std::uint64_t sequence_ = 0;
  std::vector<Event> events_;  // a heap, the next one first
  std::vector<std::unique_ptr<Kernel>> kernels_;
  std::map<std::pair<std::size_t, std::size_t>, Wire> wires_;
  std::vector<std::weak_ptr<Endpoint>> endpoints_;
  std::size_t most_endpoints_ = 64;  // before those that are gone are swept out
  Link default_link_;
  Random delays_;
  Random losses_;
  Random faults_;
  Random shapes_;
  Random scheduling_;
  Random ports_;
  Random quirks_;
  Tape* tape_ = nullptr;
  std::uint64_t in_order_ = 0;
  EventCounts* counts_ = nullptr;
  bool faults_stopped_ = false;
  std::array<std::uint64_t, kFaults> hits_{};
  std::map<std::pair<std::size_t, std::size_t>, std::size_t> injected_;
  std::uint64_t hash_ = 0xcbf29ce484222325;
  std::vector<std::deque<Record>> histories_;
  std::unique_ptr<Log> log_;
  std::uint32_t loop_ = 0;
};

}  // namespace weir::sim::detail
