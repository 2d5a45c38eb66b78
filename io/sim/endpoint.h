#pragma once

#include <weir/core/engine.h>
#include <weir/io/sim/address.h>
#include <weir/io/sim/byte_queue.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>

namespace weir::sim::detail {

struct Descriptor;
class Kernel;
class Network;
class Process;

// As Linux has them by default.
inline constexpr std::chrono::milliseconds kFirstRetry{200};
inline constexpr std::chrono::seconds kMostRetry{120};
inline constexpr std::chrono::seconds kTimeWait{60};

enum class SegmentKind : std::uint8_t { syn, syn_ack, data, ack, fin, reset };
const char* name_of(SegmentKind kind) noexcept;

struct Segment {
  SegmentKind kind;
  std::string bytes;          // data
  std::uint64_t acked = 0;    // bytes that the sender of this has received
  std::uint64_t edge = 0;     // up to where it may be sent to
  bool fin_received = false;  // the FIN is acknowledged as well
  TimePoint sent{};
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
  [[nodiscard]] std::size_t unread() const noexcept { return input_.size(); }
  [[nodiscard]] std::size_t unacknowledged() const noexcept { return output_.size(); }
  [[nodiscard]] std::uint64_t received() const noexcept { return received_; }
  [[nodiscard]] std::size_t room() const noexcept;
  /// What a send finds: one that found no room waits until a third is free, as on Linux.
  [[nodiscard]] std::size_t room_for_send() noexcept;
  void read(std::byte* into, std::size_t count);
  void write(const std::byte* from, std::size_t count);
  void pump();  // sends what the window allows
  void shutdown_send();
  void stop_listening();
  void close(bool with_reset);
  [[nodiscard]] std::uint32_t events() const noexcept;  // poll(2) bits that hold
  /// Both directions are over, and the other side knows: to its kernel it is closed.
  [[nodiscard]] bool is_over() const noexcept;
  /// What a receive gives that finds no bytes: 0 at the end, an error, or -EAGAIN for now.
  [[nodiscard]] int end_of_input() noexcept;

  // What the network does.
  void send_syn(bool to_somebody);  // nobody: it fails after a while
  void refuse(int why);             // a connect that fails
  void receive(const Segment& segment);
  /// The connection ends with this error; what was received can still be read.
  void fail(int why);
  /// An RST has come.
  void take_reset();
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
  void progress();
  [[nodiscard]] bool has_much_room() const noexcept;
  void transmit(SegmentKind kind, std::string bytes = {});
  void arrange_delivery(TimePoint at);
  void answer_syn(const Segment& segment);
  void take_syn_ack(const Segment& segment);
  void take_data(const Segment& segment);
  void take_ack(const Segment& segment);
  [[nodiscard]] std::uint64_t window_edge() const noexcept;
  void settle_close();
  void end_quietly();

  Network& network_;

  ByteQueue output_;  // not acknowledged
  std::uint64_t acked_ = 0;
  std::uint64_t sent_ = 0;
  std::uint64_t edge_ = 0;  // the peer takes bytes up to here
  bool fin_sent_ = false;
  bool fin_acked_ = false;
  bool full_ = false;  // a send found no room
  bool closed_first_ = false;

  ByteQueue input_;  // not read
  std::uint64_t received_ = 0;
  std::uint64_t advertised_ = 0;

  // What is on its way to the peer.
  std::deque<Segment> wire_;
  bool delivery_arranged_ = false;
  TimePoint last_arrival_{};
  TimePoint failing_since_{};
  Duration retry_{};
};

}  // namespace weir::sim::detail
