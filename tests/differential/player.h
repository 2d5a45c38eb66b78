#pragma once

#include <weir/weir.h>

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "../support/net.h"
#include "end.h"
#include "script.h"
#include "stage.h"

namespace weir::test::differential {

/// What the programs saw of a script: a line for each step, and one for the end.
using Transcript = std::vector<std::string>;

/// Does what a script says on the current loop and its machine, and writes down what can be seen.
///
/// After each step it waits until what the step does has arrived at the other end's kernel, or has
/// ended the connection, and the loop has taken in all that it can: so nothing is left to the
/// scheduler. What is free all the same is not written down; it says why where it is left out.
class Player : public Stage {
 public:
  Task<Transcript> play(const Script& script) {
    Transcript transcript;
    for (const Step& step : script.steps) {
      line_ = text_of(step) + ":";
      co_await perform(step);
      co_await settle();
      co_await collect();
      transcript.push_back(line_);
      if (lost_) break;
    }
    line_ = "in the end:";
    if (!lost_) {
      co_await drain(left_, false);
      co_await drain(right_, false);
    }
    transcript.push_back(line_);
    co_await clean_up();
    co_return transcript;
  }

 private:
  static constexpr std::size_t kFlood = 256 << 10;

  /// Writes down which calls have ended.
  Task<> collect() {
    for (End* end : {&left_, &right_}) {
      if (end->reading != nullptr && end->reading->done) {
        const std::unique_ptr<Call> call = std::move(end->reading);
        note(side(*end) + call->what + " gave " + call->outcome);
        if (call->takes_all && call->well) co_await take_rest(*end);
      }
      std::vector<std::unique_ptr<Call>> waiting;
      for (auto& call : end->sending) {
        if (!call->done) {
          waiting.push_back(std::move(call));
          continue;
        }
        note(side(*end) + call->what + " gave " + call->outcome);
        if (call->well) end->sent += call->bytes;
        expect_reset(*end, call->well && call->bytes > 0);
      }
      end->sending = std::move(waiting);
    }
    co_await settle();
  }

  // ---- sending ---------------------------------------------------------------------------------

  void send(End& end, std::uint32_t count) {
    if (may_have_ended(other(end))) return note("-");
    if (end.weir) return start_send(end, count, count);
    if (end.clogged) return note("-");
    const std::int64_t sent = machine().send(end.fd(), bytes_of(end.left, end.sent, count), false);
    note(sent < 0 ? name_of_error(sent) : "ok");
    if (sent >= 0 && sent != count) note("short");
    if (sent > 0) end.sent += static_cast<std::uint64_t>(sent);
    expect_reset(end, sent > 0);
  }

  /// Behind one that waits it is accepted when that has gone.
  void start_send(End& end, std::size_t count, std::uint32_t form) {
    if (end.sending.size() >= 2) return note("-");
    const bool accepted = end.sending.empty() && !end.fin;
    const std::uint64_t offset = end.sent;
    auto call = std::make_unique<Call>();
    call->what = "send";
    Call& started = *end.sending.emplace_back(std::move(call));
    started.group.spawn(await_send(end, started, bytes_of(end.left, offset, count), form));
    if (accepted && !(started.done && !started.well)) {
      end.sent += count;
      expect_reset(end, started.done);
    } else {
      started.bytes = count;
    }
  }

  Task<> flood(End& end) {
    const End& to = other(end);
    const bool possible = (shape_ & small_buffers) != 0 && to.held && !end.clogged && !to.clogged &&
                          !broken_ && !end.fin && !to.cut;
    if (!possible) co_return note("-");
    end.clogged = true;
    end.counts = end.weir;
    if (end.weir) {
      start_send(end, kFlood, 2);
      co_return;
    }
    // How much a kernel takes is its own choice: nothing of it is written down.
    const std::uint64_t most = end.sent + kFlood;
    while (end.sent < most) {
      const std::string bytes = bytes_of(end.left, end.sent, most - end.sent);
      const std::int64_t sent = machine().send(end.fd(), bytes, false);
      if (sent <= 0) break;
      end.sent += static_cast<std::uint64_t>(sent);
    }
  }

  void flush(End& end, bool shuts) {
    if (!end.weir && !shuts) return note("-");
    if (end.fin && (may_have_ended(end) || may_have_ended(other(end)))) return note("-");
    if (!end.weir) {
      const int result = sockets().shutdown_send(end.fd());
      note(result < 0 ? name_of_error(result) : "ok");
      end.fin = end.fin || result >= 0;
      return;
    }
    if (end.sending.size() >= 2) return note("-");
    auto call = std::make_unique<Call>();
    call->what = shuts ? "shutdown" : "flush";
    Call& started = *end.sending.emplace_back(std::move(call));
    end.fin = end.fin || shuts;
    started.group.spawn(await_flush(end, started, shuts));
  }

  // ---- reading ---------------------------------------------------------------------------------

  Task<> read(End& end, const Step& step) {
    // After a reset that overtook bytes it is free how many of them there are.
    if (inexact_) co_return note("-");
    // Which bytes come next, and so where the delimiter is, is not the same everywhere then.
    if (step.act == Act::read_until && !other(end).counts) co_return note("-");
    if (!end.weir) {
      co_await read_plainly(end, step.act == Act::read ? 100'000 : step.amount);
      co_return;
    }
    if (end.reading != nullptr) co_return note("-");
    end.reading = std::make_unique<Call>();
    end.reading->what = kActs[static_cast<std::size_t>(step.act)].first;
    end.reading->takes_all = step.act == Act::read || step.act == Act::read_most;
    end.reading->group.spawn(await_read(end, *end.reading, step));
  }

  /// By as many reads as it takes.
  Task<> read_plainly(End& end, std::size_t count) {
    const End& from = other(end);
    if (from.clogged && !broken_) count = std::min<std::size_t>(count, 3000);  // it is under way
    std::vector<char> bytes(count);
    std::size_t got = 0;
    std::int64_t last = 1;
    while (got < count) {
      last = machine().receive(end.fd(), std::span(bytes).subspan(got), false);
      if (last > 0) {
        got += static_cast<std::size_t>(last);
      } else if (last == -EAGAIN && from.clogged && !broken_) {
        co_await turns(1);
      } else {
        break;
      }
    }
    note(end.take({bytes.data(), got}) + std::to_string(got) + " bytes");
    if (got < count) note(last == 0 ? "end" : name_of_error(last));
  }

  /// What is there, behind a read of any size.
  Task<> take_rest(End& end) {
    if (other(end).clogged || inexact_) co_return;
    const auto left = [&] {
      return end.inbox().unread() > 0 || (end.consumed < other(end).sent && !end.inbox().at_end());
    };
    const TimePoint limit = time_now() + patience();
    while (left() && time_now() < limit) {
      if (end.inbox().unread() == 0) {
        co_await turns(1);
        continue;
      }
      const Chunk chunk = co_await end.connection.read();
      note(end.take(chunk.view()));
    }
    note("to " + count_of(end));
  }

  /// Reads all that comes. Of an end that nobody has there is nothing to see.
  Task<> drain(End& end, bool on_demand) {
    if (!end.held || end.reading != nullptr) {
      if (on_demand) note("-");
      co_return;
    }
    std::string last = "more to come";
    const auto drained = [&] { return end.consumed >= other(end).sent && all_sent(end); };
    co_await read_until_end(end, last, drained);
    if (last == "more to come") {  // the end may stand behind it
      other(end).clogged = false;
      co_await settle();
      const auto nothing = [&] { return nothing_left(end); };
      co_await read_until_end(end, last, nothing);
    }
    other(end).clogged = false;
    note(side(end) + "has " + count_of(end) + ", " + last);
  }

  template <class Condition>
  Task<> read_until_end(End& end, std::string& last, Condition done) {
    const TimePoint limit = time_now() + patience();
    while (last == "more to come" && !done()) {
      if (time_now() > limit) {
        note("in vain: all comes");
        lost_ = true;
        co_return;
      }
      co_await read_some(end, last);
    }
  }

  [[nodiscard]] bool all_sent(const End& end) {
    const auto& sending = other(end).sending;
    return std::all_of(sending.begin(), sending.end(), [](const auto& call) { return call->done; });
  }
  [[nodiscard]] static bool nothing_left(const End& end) {
    if (end.weir) return end.inbox().unread() == 0 && !end.inbox().at_end();
    const std::uint32_t held = end.events();
    return (held & (POLLIN | POLLHUP)) == 0;
  }

  Task<> read_some(End& end, std::string& last) {
    for (const auto& call : other(end).sending) {
      if (call->done && call->well) other(end).sent += std::exchange(call->bytes, 0);
    }
    if (end.weir) {
      if (end.inbox().unread() == 0 && !end.inbox().at_end()) co_return co_await turns(1);
      auto [error, chunk] = co_await as_tuple(end.connection.read());
      note(end.take(chunk.view()));
      if (error) last = error.message();
      if (!error && chunk.is_end()) last = "end";
      co_return;
    }
    std::array<char, 8192> bytes;
    const std::int64_t got = machine().receive(end.fd(), bytes, false);
    if (got > 0) note(end.take({bytes.data(), static_cast<std::size_t>(got)}));
    if (got == 0) last = "end";
    if (got == -EAGAIN) co_return co_await turns(1);
    if (got < 0) last = name_of_error(got);
  }

  // ---- ending ----------------------------------------------------------------------------------

  void close(End& end) {
    const bool no_time = (shape_ & no_linger) != 0;
    if (may_have_ended(end)) return note("-");
    // How much of a flood still stands in the kernel is free, and with it whether this resets.
    if (end.weir && no_time && other(end).clogged) return note("-");
    end.held = false;
    if (!end.weir) {
      const bool unread = sockets().unread_bytes(end.fd()) > 0;
      end.plain.close();
      if (unread) breaks();
      end.fin = end.fin || !unread;
      return;
    }
    if (no_time && end.clogged) breaks();
    end.cut = no_time;
    end.connection.close();
    end.fin = true;
    // It is read and thrown away, unless what is to be sent goes first.
    if (!no_time && !end.clogged) other(end).clogged = false;
  }

  void reset(End& end) {
    if (may_have_ended(end)) return note("-");
    end.held = false;
    end.cut = true;
    breaks();
    if (end.weir) {
      end.connection.force_close();
    } else {
      end.plain.reset();
    }
  }

  // ---- looking ---------------------------------------------------------------------------------

  void look(End& end) {
    const bool free = left_.clogged || right_.clogged || inexact_;
    if (end.weir) {
      static constexpr const char* kStates[] = {"connecting", "connected", "disconnecting",
                                                "disconnected"};
      note(kStates[static_cast<int>(end.connection.state())]);
      note(end.connection.pending_bytes() > 0 ? "some pending" : "none pending");
      return;
    }
    // With more under way than buffers take, it is theirs what they have just now.
    const std::uint32_t certain = may_have_ended(other(end)) ? 0 : POLLRDHUP | POLLHUP;
    note(events_of(end.fd(), free ? certain | POLLERR : 0xffff));
    if (free) return;
    note(std::to_string(sockets().unread_bytes(end.fd())) + " unread");
    RawAddress address;
    note("its peer " + name_of_error(std::min(0, sockets().peer_address(end.fd(), address))));
  }

  Task<> perform(const Step& step) {
    if (step.act == Act::open) co_return co_await open(step.amount);
    if (step.act == Act::refused) co_return co_await refused();
    if (step.act == Act::unaccepted) co_return co_await unaccepted();
    End& end = step.left ? left_ : right_;
    if (!end.held) co_return note("-");
    switch (step.act) {
      case Act::send:
        send(end, step.amount);
        break;
      case Act::flood:
        co_await flood(end);
        break;
      case Act::drain:
        co_await drain(end, true);
        break;
      case Act::shutdown:
      case Act::flush:
        flush(end, step.act == Act::shutdown);
        break;
      case Act::close:
        close(end);
        break;
      case Act::reset:
        reset(end);
        break;
      case Act::drop_read:
        end.reading = nullptr;
        break;
      case Act::drop_send:
        if (!end.sending.empty()) end.sending.pop_back();
        break;
      case Act::look:
        look(end);
        break;
      case Act::take_error:
        note(end.weir ? "-" : name_of_error(sockets().take_error(end.fd())));
        break;
      default:
        co_await read(end, step);
        break;
    }
  }
};

}  // namespace weir::test::differential
