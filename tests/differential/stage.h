#pragma once

#include <weir/weir.h>

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

#include "../support/net.h"
#include "end.h"
#include "script.h"

namespace weir::test::differential {

/// A connection and what is known of it: how it comes, when nothing of it is under way any more,
/// and how it goes.
class Stage {
 public:
  Stage(const Stage&) = delete;
  Stage& operator=(const Stage&) = delete;

 protected:
  static constexpr int kBuffer = 16 << 10;

  Stage() { left_.left = true; }
  ~Stage() = default;

  static TestMachine& machine() { return TestMachine::current(); }
  static Sockets& sockets() { return machine().sockets(); }
  End& other(const End& end) noexcept { return end.left ? right_ : left_; }
  void note(std::string text) {
    if (text.empty()) return;
    // Of a send and a receive under way the kernel chooses who is told of the reset; the other sees
    // its trace.
    const std::string trace = name_of_error(EPIPE);
    const std::size_t at = inexact_ ? text.find(trace) : std::string::npos;
    if (at != std::string::npos) text.replace(at, trace.size(), name_of_error(ECONNRESET));
    line_ += ' ' + text + ';';
  }

  // ---- waiting ---------------------------------------------------------------------------------

  /// In virtual time nothing takes long.
  static Duration patience() {
    return machine().turn() > Duration::zero() ? Duration(1s) : Duration(20s);
  }

  /// False, and noted, if it does not come to that.
  template <class Condition>
  Task<bool> until(Condition condition, std::string what) {
    const TimePoint end = time_now() + patience();
    while (!condition()) {
      if (time_now() > end) {
        note("in vain: " + what);
        lost_ = true;
        co_return false;
      }
      co_await turns(1);
    }
    co_return true;
  }

  /// Until the loop has taken in what there is.
  static Task<> quiesce() {
    std::uint64_t before = 0;
    do {
      before = completions();
      co_await turns(3);
    } while (completions() != before);
  }

  /// What the end's kernel has to know by now.
  [[nodiscard]] bool is_settled(End& end) {
    if (end.fd() < 0) return true;
    if (end.cut) return false;
    if (broken_) return (end.events() & POLLHUP) != 0;
    const End& from = other(end);
    if (from.clogged) return true;
    if (end.arrived() < from.sent) return false;
    if (!from.fin) return true;
    if ((end.events() & POLLRDHUP) == 0) return false;
    RawAddress address;  // both directions are over, acknowledged and all
    return !end.fin || end.clogged || sockets().peer_address(end.fd(), address) < 0;
  }

  Task<> settle() {
    if (lost_) co_return;
    const auto both = [this] { return is_settled(left_) && is_settled(right_); };
    (void)co_await until(both, "what was sent arrives");
    co_await quiesce();
  }

  static std::string side(const End& end) { return end.left ? "left " : "right "; }

  /// What is sent to whom the kernel does not know any more is answered with a reset.
  void expect_reset(const End& from, bool sent) {
    if (sent && other(from).fd() < 0) breaks();
  }

  void breaks() noexcept {
    broken_ = true;
    inexact_ = inexact_ || left_.clogged || right_.clogged;
  }

  /// Whether the FIN behind a flood is in the peer's kernel by now is free, and
  /// with it as what the peer hears of a reset.
  static bool may_have_ended(const End& end) noexcept { return end.clogged && end.fin; }

  /// The rest of what a reset overtook is free.
  [[nodiscard]] std::string count_of(const End& end) {
    if (inexact_) return "a part";
    return other(end).counts ? std::to_string(end.consumed) : "some";
  }
  // ---- opening ---------------------------------------------------------------------------------

  static Socket make_listener(int buffer_bytes) {
    Socket listener(sockets(), sockets().open(AF_INET));
    if (buffer_bytes > 0) {
      (void)sockets().set(listener.fd(), Sockets::Option::receive_buffer, buffer_bytes);
      (void)sockets().set(listener.fd(), Sockets::Option::send_buffer, buffer_bytes);
    }
    if (sockets().bind(listener.fd(), loopback().raw()) < 0 ||
        sockets().listen(listener.fd(), 8) < 0) {
      throw std::runtime_error("no listener");
    }
    return listener;
  }

  static ConnectionOptions options_of(std::uint32_t shape) {
    ConnectionOptions options;
    if ((shape & small_buffers) != 0) {
      options.water_marks = {.high = 32 << 10, .low = 8 << 10};
      options.input_high = 16 << 10;
    }
    // Without linger: how much of what is paused still stands in the kernel is free, and with it
    // whether a close resets.
    if ((shape & no_linger) != 0) {
      options.linger = 0ms;
    } else if ((shape & small_input) != 0) {
      options.input_high = 1000;
    }
    return options;
  }

  static void adopt(End& end, Socket socket, std::uint32_t shape) {
    end.weir = (shape & (end.left ? left_weir : right_weir)) != 0;
    end.held = true;
    if (end.weir) {
      end.connection = TcpConnection(std::move(socket), options_of(shape));
    } else {
      end.plain = Peer(socket.release());
    }
  }

  static Task<> await_accept(Acceptor& acceptor, Socket& accepted) {
    accepted = co_await acceptor.accept();
  }

  Task<> open(std::uint32_t shape) {
    if (left_.held || right_.held) co_return note("-");
    co_await clean_up();
    shape_ = shape;
    const int buffer_bytes = (shape & small_buffers) != 0 ? kBuffer : 0;
    Socket listener = make_listener(buffer_bytes);
    const SocketAddress address = listener.bound_address();
    Socket client;
    Socket accepted;
    if ((shape & right_weir) == 0) {
      client = Socket(sockets(), machine().connect(address, buffer_bytes));
      accepted = Socket(sockets(), sockets().accept(listener.fd()));
    } else {
      Acceptor acceptor(EventLoop::current(), std::move(listener));
      TaskGroup accepting;
      if ((shape & accept_dropped) != 0) {
        accepting.spawn(await_accept(acceptor, accepted));
        accepting.cancel();
      }
      if ((shape & accept_first) != 0) accepting.spawn(await_accept(acceptor, accepted));
      if ((shape & left_weir) != 0 && buffer_bytes == 0) {
        const Connector connector(address);
        client = co_await connector.try_once();
      } else {
        client = Socket(sockets(), machine().connect(address, buffer_bytes));
      }
      if ((shape & accept_first) == 0) accepting.spawn(await_accept(acceptor, accepted));
      co_await accepting.join();
    }
    if (!client || !accepted) throw std::runtime_error("no connection");
    adopt(left_, std::move(client), shape);
    adopt(right_, std::move(accepted), shape);
    note("ok");
  }

  /// Of a listener that has gone a moment ago.
  Task<> refused() {
    Socket listener = make_listener(0);
    const SocketAddress address = listener.bound_address();
    listener.close();
    note("a plain connect gave " + name_of_error(machine().connect(address, 0)));
    const Connector connector(address);
    const auto tried = co_await as_tuple(connector.try_once());
    note("weir's gave " + outcome_of(tried.error));
    const Socket socket(sockets(), sockets().open(AF_INET));
    const int result = sockets().connect(socket.fd(), address.raw());
    if (result != -EINPROGRESS) co_return note("another gave " + name_of_error(result));
    const auto settled = [&] { return machine().look_at(socket.fd()) != 0; };
    (void)co_await until(settled, "a connect is refused");
    note("another's socket " + events_of(socket.fd()));
    for (int i = 0; i < 2; ++i) note("then " + name_of_error(sockets().take_error(socket.fd())));
    note("and " + events_of(socket.fd()));
  }

  /// A client that nobody has accepted when the listener goes.
  Task<> unaccepted() {
    Socket listener = make_listener(0);
    note("the listener " + events_of(listener.fd()));
    const Peer client(machine().connect(listener.bound_address(), 0));
    const auto there = [&] { return (machine().look_at(listener.fd()) & POLLIN) != 0; };
    (void)co_await until(there, "the client is there");
    note("then " + events_of(listener.fd()));
    listener.close();
    const auto gone = [&] { return (machine().look_at(client.fd()) & POLLHUP) != 0; };
    (void)co_await until(gone, "the client is told");
    note("its client " + events_of(client.fd()));
    std::array<char, 1> byte{};
    for (int i = 0; i < 2; ++i) {
      note("reads " + name_of_error(machine().receive(client.fd(), byte, false)));
    }
    note("sends " +
         name_of_error(std::min<std::int64_t>(0, machine().send(client.fd(), "x", false))));
  }

  static std::string events_of(int fd, std::uint32_t mask = 0xffff) {
    const std::uint32_t held = machine().look_at(fd) & mask;
    std::string text = "has";
    const auto add = [&](std::uint32_t bit, const char* name) {
      if ((held & bit) != 0) text += std::string(" ") + name;
    };
    add(POLLIN, "in");
    add(POLLOUT, "out");
    add(POLLRDHUP, "rdhup");
    add(POLLHUP, "hup");
    add(POLLERR, "err");
    return text;
  }

  // ---- ending ----------------------------------------------------------------------------------

  /// Everything goes, whatever it is at.
  Task<> clean_up() {
    for (End* end : {&left_, &right_}) {
      end->reading = nullptr;
      end->sending.clear();
      if (end->weir) {
        end->connection.force_close();
      } else {
        end->plain.close();
      }
    }
    const auto gone = [this] { return left_.fd() < 0 && right_.fd() < 0; };
    (void)co_await until(gone, "all is closed");
    for (End* end : {&left_, &right_}) {
      const bool left = end->left;
      end->connection = TcpConnection();
      end->plain = Peer();
      end->weir = end->held = end->fin = end->clogged = end->cut = false;
      end->left = left;
      end->counts = true;
      end->sent = end->consumed = 0;
    }
    broken_ = inexact_ = false;
  }

  End left_;
  End right_;
  std::uint32_t shape_ = 0;
  bool broken_ = false;   // by a reset, which both ends have heard of
  bool inexact_ = false;  // and it overtook bytes
  bool lost_ = false;     // what was waited for did not come
  std::string line_;
};

}  // namespace weir::test::differential
