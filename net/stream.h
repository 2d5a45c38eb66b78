#pragma once

#include <weir/core/event_loop.h>
#include <weir/coro/event.h>
#include <weir/net/chunk.h>
#include <weir/net/connection_options.h>
#include <weir/net/segment_queue.h>
#include <weir/net/socket.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace weir {

enum class ConnectionState { connecting, connected, disconnecting, disconnected };

class SenderCore;
class Stream;

/// Whoever keeps account of streams: a server.
class StreamOwner {
 public:
  /// Called once, when the descriptor has been closed.
  virtual void stream_closed(Stream& stream) noexcept = 0;
  [[nodiscard]] virtual std::string_view owner_name() const noexcept = 0;
  /// Set once it lets its streams end and takes no new ones; later for those on which nothing has
  /// been sent.
  [[nodiscard]] virtual Event& draining(bool used) noexcept = 0;

 protected:
  ~StreamOwner() = default;
};

/// The pinned part of a connection: descriptor, operations, queues. It belongs to its loop, from
/// the adoption of the socket until the kernel has let go of everything, the descriptor is closed
/// and the user's handle (`TcpConnection`) is gone. Loop's thread only.
///
/// One operation at a time receives: into leased buffers as long as they do not fill up, into one
/// large buffer after another when they do (bulk); above the input mark it only polls for the
/// peer's end. One operation at a time sends what is queued by then, or reads a file for that.
class Stream final : public LoopResource,
                     public TurnEnd,
                     public TaggedLink<StreamOwner>,
                     public FrameAllocated {
 public:
  /// A read from when it waits until it resumes or is dropped. One at a time.
  struct Reader {
    /// Whether it can finish with what is there. Asked whenever bytes come in. None: with any.
    using Satisfied = bool (*)(Reader&) noexcept;

    explicit Reader(Stream* of, Satisfied enough = nullptr) noexcept
        : stream(of), satisfied(enough) {}
    // The one moved from lives on in its full expression, maybe longer than the stream.
    Reader(Reader&& other) noexcept
        : stream(std::exchange(other.stream, nullptr)), satisfied(other.satisfied) {}
    ~Reader() { leave(); }
    void leave() noexcept {
      if (stream != nullptr && stream->reader_ == this) stream->reader_ = nullptr;
    }

    Stream* stream;  // nullptr once the stream was closed under it
    Satisfied satisfied;
    Waiter waiter;
  };

  /// A send that waits: to be accepted, or, accepted, for the queue to go down. Once it need not
  /// wait any more the stream may go before it does.
  struct Send : Waiter {
    explicit Send(Stream* of) noexcept : stream(of) {}
    Send(Send&& other) noexcept
        : stream(other.stream),
          data(other.data),
          size(other.size),
          buffer(std::move(other.buffer)) {}

    Stream* stream;  // nullptr once it need not wait any more
    const std::byte* data = nullptr;
    std::size_t size = 0;
    BufferRef buffer;  // the owner of `data`; empty where the bytes have to be copied
    int error = 0;     // errno
    bool accepted = false;
  };

  /// A flush that waits until the first `until` bytes of the stream are with the kernel, or a
  /// shutdown, until the FIN is.
  struct Flush : Waiter {
    explicit Flush(Stream* of) noexcept : stream(of) {}
    Flush(Flush&& other) noexcept : stream(other.stream) {}

    Stream* stream;
    std::uint64_t until = 0;
    int error = 0;  // errno
  };

  /// Takes over a connected socket. `inherited`: the socket has the options of its listener.
  static Stream* adopt(EventLoop& loop, Socket socket, const ConnectionOptions& options,
                       StreamOwner* owner = nullptr, std::uint64_t id = 0, bool inherited = false);

  /// Throws `std::invalid_argument` that names the option and its value.
  static void check(const ConnectionOptions& options);

  // Reading.
  [[nodiscard]] std::size_t unread() const noexcept { return unread_; }
  [[nodiscard]] bool at_end() const noexcept {
    return ended_ || (!plain_ && (failed_ || closing_));
  }
  [[nodiscard]] bool closing() const noexcept { return closing_; }
  /// Whether a read waits, or is about to resume.
  [[nodiscard]] bool has_reader() const noexcept { return reader_ != nullptr; }
  void wait_for_input(Reader& reader) {
    if (reader_ == nullptr && !paused_ && receive_.in_flight()) [[likely]] {
      reader_ = &reader;
    } else {
      wait_slowly(reader);
    }
  }
  /// The first piece of what is unread, empty if there is none.
  Chunk take_some() noexcept {
    if (unread_ == 0) return {};
    Segment& front = input_.front();
    Chunk chunk(std::move(front.buffer), front.data, front.size);
    input_.pop_front();
    consumed_input(chunk.size());
    return chunk;
  }
  /// `count` unread bytes in one piece.
  Chunk take_exactly(std::size_t count);
  /// How many of the first `most` unread bytes it takes to have the delimiter; 0 if it is not
  /// there. `scanned` remembers where the search ended, from call to call.
  std::size_t find(std::string_view delimiter, std::size_t most, std::size_t& scanned);
  /// What broke the connection (errno), at most once; then 0.
  int take_error() noexcept { return std::exchange(error_, 0); }

  // Writing.
  /// Queues a message if that is all there is to do. False if it is not: `try_send` does it then.
  [[gnu::always_inline]] bool try_send_plain(BufferRef& buffer, const std::byte* data,
                                             std::size_t size) {
    // As unsigned numbers: neither nothing at all nor the high mark and above.
    if (!plain_ || pending_ != 0 || !buffer || data == nullptr || size - 1 >= high_ - 1) {
      return false;
    }
    // Nearly always: nothing before it, and no copy to make. What is queued in the same turn of
    // the loop still goes with it: the engine looks at them when it waits. `send_` is as the
    // constructor made it: whatever else it was used for ended the plain days of this stream.
    pending_ = size;
    output_.push_first(std::move(buffer), data, size);
    in_flight_ = 1;
    loop_.engine().submit(send_);
    return true;
  }
  /// Queues what may be queued now. True if the send need not wait.
  bool try_send(Send& send);
  /// What a send of a part of a file has as its buffer, with no data. Throws `std::system_error`.
  static BufferRef file_part(int file, std::uint64_t offset);
  void wait_to_send(Send& send) noexcept;
  void stop_sending(Send& send) noexcept;
  bool try_flush(Flush& flush) noexcept;
  bool try_shutdown(Flush& flush) noexcept;
  void wait_to_flush(Flush& flush) noexcept {
    plain_ = false;
    flushes_.push_back(flush);
  }
  [[nodiscard]] std::size_t pending() const noexcept { return pending_; }
  void set_water_marks(WaterMarks marks);
  void on_high_water(std::function<void(std::size_t)> function);
  std::shared_ptr<SenderCore> sender_core();

  // Ending.
  void close_and_conclude() noexcept;
  void force_close() noexcept;
  /// Ends the connection for its user, who is told the error.
  void cut(int error, bool with_reset) noexcept;
  /// The owner's; nullptr without an owner.
  [[nodiscard]] Event* draining() const noexcept {
    return owner_ == nullptr ? nullptr : &owner_->draining(sent_ + pending_ > 0);
  }
  [[nodiscard]] bool is_draining() const noexcept {
    return owner_ != nullptr && owner_->draining(true).is_set();
  }
  /// The owner goes before the stream.
  void forget_owner() noexcept;
  /// The user's handle is gone.
  void drop() noexcept;
  void end_with_loop() noexcept override;

  /// How often this was asked since anything was read by the user or sent.
  [[nodiscard]] unsigned idle_rounds() noexcept { return idle_rounds_++; }

  [[nodiscard]] EventLoop& loop() const noexcept { return loop_; }
  [[nodiscard]] int fd() const noexcept { return fd_; }
  [[nodiscard]] std::uint64_t id() const noexcept { return id_; }
  [[nodiscard]] std::string name() const;
  [[nodiscard]] SocketAddress peer_address() const;
  [[nodiscard]] SocketAddress local_address() const;
  [[nodiscard]] ConnectionState state() const noexcept;

 private:
  friend class SenderCore;

  class FileSource;
  struct Extras;  // what few streams need

  Stream(EventLoop& loop, Socket socket, const ConnectionOptions& options, StreamOwner* owner,
         std::uint64_t id);
  ~Stream();

  void end_turn() noexcept override;

  void consumed_input(std::size_t count) noexcept {
    idle_rounds_ = 0;
    unread_ -= count;
    if (paused_) update_receiving();
  }
  static void on_receive(Operation& operation, Completion completion) noexcept;
  void on_received(Completion completion) noexcept;
  void take_in(Completion completion) noexcept;
  void append_input(BufferRef buffer, const std::byte* data, std::size_t size);
  void wait_slowly(Reader& reader);
  void update_receiving() noexcept;
  bool prepare_bulk() noexcept;
  void wake_reader() noexcept;
  [[nodiscard]] bool reader_waits() const noexcept {
    return reader_ != nullptr && !reader_->waiter.linked();
  }

  void accept(Send& send);
  /// Queues what came from the senders of other threads.
  void take_over(const std::vector<std::string>& messages) noexcept;
  void drain_sender() noexcept;
  void append_copy(const std::byte* data, std::size_t size);
  void queue_output() noexcept;
  void start_output() noexcept;
  void prepare_send();
  void prepare_file();
  static void on_send(Operation& operation, Completion completion) noexcept;
  void on_output(Completion completion) noexcept;
  void on_file_read(Completion completion) noexcept;
  void sent(std::size_t count) noexcept;
  void admit_senders() noexcept;
  void settle_flushes() noexcept;
  void send_fin_if_due() noexcept;
  void publish_pending() noexcept;

  void fail(int error) noexcept;
  void end_waiting(int error) noexcept;
  static void release(Send& send) noexcept;
  void close_sender() noexcept;
  void close() noexcept;
  void progress_close() noexcept;
  void abort() noexcept;
  /// The last thing of every entry: closes the descriptor when nothing needs it any more, and
  /// ends this object once its handle is gone too.
  void conclude() noexcept;
  void keep_names() noexcept;
  Extras& extras();
  void update_plain() noexcept;

  EventLoop& loop_;
  StreamOwner* owner_;
  std::uint64_t id_;
  CompactAddress peer_;
  int fd_;

  // Options and marks, in bytes.
  std::uint32_t linger_ms_;
  std::size_t high_;
  std::size_t low_;
  std::size_t input_high_;

  // Input.
  Operation receive_;
  SegmentQueue input_;
  std::size_t unread_ = 0;
  Reader* reader_ = nullptr;
  BufferRef bulk_buffer_;

  // Output. The first `in_flight_` segments are with the kernel.
  Operation send_;
  SegmentQueue output_;
  std::size_t pending_ = 0;  // bytes accepted and not yet with the kernel
  std::uint64_t sent_ = 0;   // bytes ever given to the kernel
  List<Send> senders_;
  List<Flush> flushes_;
  BufferRef copy_buffer_;     // where small messages are copied to, one behind the other
  std::uint32_t copied_ = 0;  // how much of it is used
  std::uint32_t in_flight_ = 0;
  std::unique_ptr<Extras> extras_;

  int error_ = 0;                  // errno, for the next to ask
  std::uint8_t full_buffers_ = 0;  // receives in a row that were as large as they could be
  std::uint8_t idle_rounds_ = 0;
  /// Nothing is out of the ordinary: open, nobody waits to send or flush, no extras, no copies
  /// under way. One look instead of seven on the path of every request.
  bool plain_ = true;
  bool bulk_ : 1 = false;
  bool paused_ : 1 = false;
  bool end_seen_ : 1 = false;  // the peer's end showed while receiving was paused
  bool ended_ : 1 = false;     // the peer's FIN was read
  bool failed_ : 1 = false;    // broken: nothing goes in or out any more
  bool fin_wanted_ : 1 = false;
  bool fin_sent_ : 1 = false;
  bool closing_ : 1 = false;  // what comes in is discarded
  bool reset_ : 1 = false;    // end with RST
  bool dropped_ : 1 = false;  // the user's handle is gone
  bool loop_ending_ : 1 = false;
};

}  // namespace weir
