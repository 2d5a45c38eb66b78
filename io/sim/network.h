#pragma once

#include <weir/core/engine.h>
#include <weir/io/sim/faults.h>
#include <weir/io/sim/options.h>
#include <weir/io/sim/random.h>

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace weir::sim {

class Kernel;
class Network;
class Process;
class SimulatedEngine;

/// An IP address and port. IPv4 stands in the first four bytes.
struct Address {
  std::array<std::uint8_t, 16> ip{};
  bool v6 = false;
  std::uint16_t port = 0;

  static std::optional<Address> from(const RawAddress& raw) noexcept;
  /// An address without a port, as text.
  static std::optional<Address> parse(std::string_view text);
  [[nodiscard]] RawAddress raw() const noexcept;
  [[nodiscard]] std::string text() const;
  [[nodiscard]] bool is_any() const noexcept { return ip == std::array<std::uint8_t, 16>{}; }
  [[nodiscard]] bool is_loopback() const noexcept;
  [[nodiscard]] Address with_port(std::uint16_t other) const noexcept;

  friend auto operator<=>(const Address&, const Address&) = default;
};

/// An operation that waits at a descriptor.
struct Slot {
  Operation* operation = nullptr;
  SimulatedEngine* engine = nullptr;
  explicit operator bool() const noexcept { return operation != nullptr; }
};

class Endpoint;
const char* name_of(OperationKind kind) noexcept;

/// An open descriptor of a simulated process. What waits at it completes in the order in which it
/// is done; what happens at different descriptors may be told in any order.
struct Descriptor {
  int fd = -1;
  std::shared_ptr<Endpoint> endpoint;  // none: a spare descriptor, or one of signals
  std::vector<int> signals;
  Slot accept;
  Slot receive;
  Slot send;
  std::vector<Slot> polls;
  TimePoint last_due{};
  std::uint64_t last_tie = 0;

  [[nodiscard]] bool awaited() const noexcept {
    return accept || receive || send || !polls.empty();
  }
};

enum class SegmentKind : std::uint8_t { syn, syn_ack, data, ack, fin, reset };
const char* name_of(SegmentKind kind) noexcept;

struct Segment {
  SegmentKind kind;
  std::string bytes;          // data
  std::uint64_t acked = 0;    // bytes that the sender of this has received
  std::uint64_t edge = 0;     // up to where it may be sent to
  bool fin_received = false;  // the FIN is acknowledged as well
  TimePoint arrival{};
};

/// One end of a TCP connection, or a listener. It belongs to its descriptor, and when that is
/// closed, until everything is flushed, to its kernel.
///
/// Bytes leave in segments, which arrive complete and in order: a loss is a delay. The receiver's
/// window bounds what is under way, the send buffer what a sender may leave behind.
class Endpoint final : public std::enable_shared_from_this<Endpoint> {
 public:
  enum class State : std::uint8_t { fresh, listening, connecting, open, broken };

  Endpoint(Network& network, Kernel& on, bool is_v6);

  // What the process asks for.
  [[nodiscard]] std::size_t unread() const noexcept { return input_.size() - input_head_; }
  [[nodiscard]] std::size_t room() const noexcept;
  void read(std::byte* into, std::size_t count);
  void write(const std::byte* from, std::size_t count);
  void pump();  // sends what the window allows
  void shutdown_send();
  void stop_listening();
  void close(bool with_reset);
  [[nodiscard]] std::uint32_t events() const noexcept;  // poll(2) bits that hold

  // What the network does.
  void send_syn(bool to_somebody);  // nobody: it fails after a while
  void refuse(int why);             // a connect that fails
  void receive(const Segment& segment);
  /// The connection ends with this error; what was received can still be read.
  void fail(int why);
  /// A reset that comes from nowhere: both ends see it.
  void reset_both();
  /// The machine is gone, and with it this end: nobody is told.
  void vanish() noexcept;
  void deliver_front();

  State state = State::fresh;
  bool v6 = false;
  bool bound = false;
  bool gone = false;  // its side has ended: what still comes is answered with a reset
  bool orphan = false;
  bool reuse_address = false;
  bool reuse_port = false;
  bool v6_only = false;
  bool reset_on_close = false;
  bool keep_alive = false;
  bool fin_queued = false;
  bool fin_received = false;
  int error = 0;  // errno, to be told once
  std::size_t send_capacity;
  std::size_t receive_capacity;
  std::chrono::milliseconds user_timeout{0};
  Address local;
  Address remote;
  std::size_t remote_host = 0;
  std::weak_ptr<Endpoint> peer;
  Descriptor* descriptor = nullptr;
  Process* process = nullptr;
  Kernel& kernel;

  // Of a listener.
  std::size_t backlog = 0;
  std::deque<std::shared_ptr<Endpoint>> waiting;

 private:
  friend class Network;

  void progress();
  void transmit(SegmentKind kind, std::string bytes = {});
  void arrange_delivery(TimePoint at);
  void answer_syn(const Segment& segment);
  void take_syn_ack(const Segment& segment);
  void take_data(const Segment& segment);
  void take_ack(const Segment& segment);
  void acknowledge();
  [[nodiscard]] std::uint64_t window_edge() const noexcept;
  void settle_close();
  void end_with_reset();
  void end_quietly();

  Network& network_;

  std::string output_;  // from `output_head_` on: not acknowledged
  std::size_t output_head_ = 0;
  std::uint64_t acked_ = 0;
  std::uint64_t sent_ = 0;
  std::uint64_t edge_ = 0;  // the peer takes bytes up to here
  bool fin_sent_ = false;
  bool fin_acked_ = false;
  bool closed_first_ = false;

  std::string input_;  // from `input_head_` on: not read
  std::size_t input_head_ = 0;
  std::uint64_t received_ = 0;
  std::uint64_t advertised_ = 0;

  // What is on its way to the peer.
  std::deque<Segment> wire_;
  bool delivery_arranged_ = false;
  TimePoint last_arrival_{};
  TimePoint failing_since_{};
  Duration retry_{};
};

/// The descriptors and signals of one simulated process.
class Process final : public Sockets {
 public:
  Process(Network& network, Kernel& kernel, std::size_t limit)
      : network_(network), kernel_(kernel), limit_(limit) {}

  int open(int family) override;
  int bind(int fd, const RawAddress& address) override;
  int listen(int fd, int backlog) override;
  int connect(int fd, const RawAddress& address) override;
  int accept(int listener) override;
  int set(int fd, Option option, int value) override;
  int take_error(int fd) override;
  int local_address(int fd, RawAddress& address) override;
  int peer_address(int fd, RawAddress& address) override;
  int shutdown_send(int fd) override;
  void stop_listening(int fd) noexcept override;
  int unread_bytes(int fd) override;
  void close(int fd) noexcept override;
  int open_spare() override;
  int open_signals(std::span<const int> signals) override;
  int take_signal(int fd) override;
  void close_signals(int fd) noexcept override;
  void raise_signal(int number) noexcept override;

  /// True if somebody waits for it.
  bool deliver_signal(int number);

  [[nodiscard]] Descriptor* find(int fd) const noexcept;
  void attach(Descriptor& descriptor, Operation& operation, SimulatedEngine& engine);
  /// False if it does not wait there any more.
  bool detach(Descriptor& descriptor, const Operation& operation) noexcept;
  /// Every operation of this engine that waits.
  [[nodiscard]] std::vector<Operation*> waiting_of(const SimulatedEngine& engine) const;
  void progress(Descriptor& descriptor);
  void set_limit(std::size_t limit) noexcept { limit_ = limit; }
  [[nodiscard]] std::size_t open_count() const noexcept { return open_; }
  [[nodiscard]] std::string describe_open() const;
  [[nodiscard]] std::string describe_waiting() const;
  [[nodiscard]] bool dead() const noexcept { return dead_; }
  /// The process ends: the kernel closes what it had open, or, with the machine, forgets it. Its
  /// code may still close its descriptors.
  void die(bool with_machine);
  [[nodiscard]] Kernel& kernel() const noexcept { return kernel_; }

 private:
  int new_descriptor(std::shared_ptr<Endpoint> endpoint);
  [[nodiscard]] bool is_full() const noexcept { return open_ >= limit_; }
  int lack_of_resources();
  int take_client(Endpoint& listener);
  void try_accept(Descriptor& descriptor);
  void try_receive(Descriptor& descriptor);
  void try_send(Descriptor& descriptor);
  void try_polls(Descriptor& descriptor);
  [[nodiscard]] std::uint32_t events(const Descriptor& descriptor) const noexcept;

  Network& network_;
  Kernel& kernel_;
  std::vector<std::unique_ptr<Descriptor>> descriptors_;
  std::vector<int> pending_signals_;
  std::size_t limit_;
  std::size_t open_ = 0;
  bool dead_ = false;
};

/// The TCP of one simulated machine: addresses, ports, and connections without a process.
class Kernel {
 public:
  Kernel(Network& network, std::size_t host) : network_(network), host_(host) {}

  [[nodiscard]] std::size_t host() const noexcept { return host_; }
  [[nodiscard]] bool up() const noexcept { return up_; }
  void power(bool on);

  int bind(const std::shared_ptr<Endpoint>& endpoint, Address address);
  [[nodiscard]] bool is_in_use(const Endpoint& endpoint, const Address& address) const noexcept;
  void unbind(const Endpoint& endpoint);
  /// Gives a connecting endpoint an address and a port; 0 or -errno.
  int choose_local(Endpoint& endpoint, const Address& remote);
  void add_connection(const Address& local, const Address& remote);
  void end_connection(const Address& local, const Address& remote, bool time_wait);
  void adopt(std::shared_ptr<Endpoint> orphan) { orphans_.push_back(std::move(orphan)); }
  void drop(const Endpoint& orphan);
  [[nodiscard]] std::shared_ptr<Endpoint> find_listener(const Address& address,
                                                        const Address& from);
  [[nodiscard]] bool owns(const Address& address) const noexcept;

  std::vector<Address> addresses;

 private:
  using Pair = std::pair<Address, Address>;

  [[nodiscard]] bool port_is_bound(const Address& address) const noexcept;
  [[nodiscard]] bool pair_is_free(const Address& local, const Address& remote);
  [[nodiscard]] bool port_lingers(std::uint16_t port);

  Network& network_;
  std::size_t host_;
  bool up_ = true;
  std::vector<std::shared_ptr<Endpoint>> bound_;
  std::map<Pair, TimePoint> connections_;  // until when the pair is taken
  std::vector<std::shared_ptr<Endpoint>> orphans_;
};

/// What happens, for people and for the trace hash.
struct Record {
  TimePoint at{};
  const char* what = "";
  int fd = -1;
  std::int64_t value = 0;
  std::string text;
};

/// Time, randomness, machines and what is between them.
class Network {
 public:
  explicit Network(const WorldOptions& options);

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
  [[nodiscard]] std::uint64_t hits(Fault fault) const noexcept {
    return hits_[static_cast<std::size_t>(fault)];
  }

  Random& shapes() noexcept { return shapes_; }          // sizes of pieces, lateness
  Random& scheduling() noexcept { return scheduling_; }  // order of what happens at once
  Random& ports() noexcept { return ports_; }
  [[nodiscard]] std::uint64_t seed_of(std::uint64_t stream) const noexcept;

  void trace(std::size_t host, const char* what, int fd, std::int64_t value,
             std::span<const std::byte> bytes = {});
  void note(std::size_t host, const char* what, std::string text);
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
  void remember(std::size_t host, Record record);

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
  std::array<std::uint64_t, kFaults> hits_{};
  std::map<std::pair<std::size_t, std::size_t>, std::size_t> injected_;
  std::uint64_t hash_ = 0xcbf29ce484222325;
  std::vector<std::deque<Record>> histories_;
};

}  // namespace weir::sim
