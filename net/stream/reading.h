#pragma once

#include <weir/coro/result.h>
#include <weir/net/stream/inbox.h>

#include <cerrno>
#include <coroutine>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

namespace weir::detail {

/// What the forms of reading share: they wait in the inbox and look at what is unread. `Derived`
/// says when there is `enough`, and takes it, or gives the failure.
template <class Derived, class Reader>
class ReadingAs : public Reader {
 public:
  using Reader::inbox;
  using Reader::leave;
  using Reader::waiter;

  bool await_ready() {
    if (inbox == nullptr) return true;
    if (inbox->has_reader()) return false;  // its bytes; waiting throws
    return (static_cast<Derived&>(*this).enough() || inbox->at_end()) && Scheduler::may_go_on();
  }
  void await_suspend(std::coroutine_handle<> handle) {
    if (inbox == nullptr) __builtin_unreachable();  // it was ready then; GCC 14 at -O3 doubts it
    waiter.suspend(handle);
    inbox->wait(static_cast<Reader&>(*this));
  }
  Chunk await_resume() {
    Failure failure = 0;
    Chunk chunk = take(failure);
    if (failure != 0) throw_failure(failure);
    return chunk;
  }
  Outcome<Chunk> outcome() {
    Failure failure = 0;
    Chunk chunk = take(failure);
    return {code_of(failure), std::move(chunk)};
  }

 protected:
  using Reader::Reader;

 private:
  Chunk take(Failure& failure) {
    leave();
    auto& derived = static_cast<Derived&>(*this);
    if (inbox != nullptr && derived.enough()) return derived.take_enough(failure);
    // The end came before there was enough: the mark of a clean end, or a failure.
    failure = inbox == nullptr ? kClosedHere : inbox->why_ended();
    return failure == 0 ? Chunk::end() : Chunk();
  }
};

/// Any bytes are enough.
template <class Derived>
class Reading : public ReadingAs<Derived, Inbox::Reader> {
 public:
  explicit Reading(Inbox* of) noexcept : ReadingAs<Derived, Inbox::Reader>(of) {}
};

/// What is enough is asked whenever bytes come.
template <class Derived>
class PatientReading : public ReadingAs<Derived, Inbox::PatientReader> {
 public:
  explicit PatientReading(Inbox* of) noexcept
      : ReadingAs<Derived, Inbox::PatientReader>(of, [](Inbox::PatientReader& reader) noexcept {
          return static_cast<Derived&>(reader).enough();
        }) {}
};

class [[nodiscard("co_await it")]] ReadAwaiter final : public Reading<ReadAwaiter> {
 public:
  static constexpr char kWaitsFor[] = "read";

  explicit ReadAwaiter(Inbox* of) noexcept : Reading(of) {}
  bool await_ready() const noexcept {
    if (inbox == nullptr) return true;
    if (inbox->waits_for_bytes()) return false;
    // With another reader there they are its bytes; waiting throws.
    return (inbox->unread() > 0 || inbox->at_end()) && !inbox->has_reader() &&
           Scheduler::may_go_on();
  }
  [[gnu::always_inline]] Chunk await_resume() {
    leave();
    if (inbox == nullptr || inbox->unread() == 0) [[unlikely]] {
      throw_unless_clean();
      return Chunk::end();
    }
    Chunk chunk = inbox->take_some();
    inbox = nullptr;  // nothing is left for the destructor to do
    waiter.mark_unlinked();
    return chunk;
  }
  [[nodiscard]] bool enough() const noexcept { return inbox->unread() > 0; }
  Chunk take_enough(Failure& /*failure*/) noexcept { return inbox->take_some(); }

 private:
  // A call that gives an object would cost every user's coroutine a stack protector.
  [[gnu::noinline]] void throw_unless_clean() { (void)Reading::await_resume(); }
};

/// A read before it is awaited, which is when its awaiter is made: in its place in the coroutine's
/// frame, so that the compiler sees through it.
class [[nodiscard("co_await it")]] Read {
 public:
  static constexpr char kWaitsFor[] = "read";

  explicit Read(Inbox* of) noexcept : inbox_(of) {}
  ReadAwaiter operator co_await() const noexcept { return ReadAwaiter(inbox_); }

 private:
  Inbox* inbox_;
};

class [[nodiscard("co_await it")]] ReadMostAwaiter final : public Reading<ReadMostAwaiter> {
 public:
  static constexpr char kWaitsFor[] = "read";

  ReadMostAwaiter(Inbox* of, std::size_t most) noexcept : Reading(of), most_(most) {}
  bool await_ready() { return (most_ == 0 && inbox != nullptr) || Reading::await_ready(); }
  [[nodiscard]] bool enough() const noexcept { return inbox->unread() > 0 || most_ == 0; }
  Chunk take_enough(Failure& /*failure*/) noexcept { return inbox->take_most(most_); }

 private:
  std::size_t most_;
};

class [[nodiscard("co_await it")]] ReadExactlyAwaiter final
    : public PatientReading<ReadExactlyAwaiter> {
 public:
  static constexpr char kWaitsFor[] = "read_exactly";

  ReadExactlyAwaiter(Inbox* of, std::size_t count) noexcept : PatientReading(of), count_(count) {}
  bool await_ready() { return (count_ == 0 && inbox != nullptr) || PatientReading::await_ready(); }
  [[nodiscard]] bool enough() const noexcept { return inbox->unread() >= count_; }
  Chunk take_enough(Failure& /*failure*/) { return inbox->take_exactly(count_); }

 private:
  std::size_t count_;
};

class [[nodiscard("co_await it")]] ReadUntilAwaiter final
    : public PatientReading<ReadUntilAwaiter> {
 public:
  static constexpr char kWaitsFor[] = "read_until";

  /// Throws `std::invalid_argument` for an empty delimiter, or one longer than `most`.
  ReadUntilAwaiter(Inbox* of, std::string_view delimiter, std::size_t most);
  bool enough() noexcept {
    if (found_ == 0) found_ = inbox->find(delimiter_, most_, scanned_);
    return found_ > 0 || inbox->unread() >= most_;
  }
  Chunk take_enough(Failure& failure) {
    if (found_ == 0) failure = EMSGSIZE;
    return inbox->take_exactly(found_);
  }

 private:
  std::string delimiter_;
  std::size_t most_;
  std::size_t scanned_ = 0;
  std::size_t found_ = 0;
};

class [[nodiscard("co_await it")]] PeekAwaiter final : public PatientReading<PeekAwaiter> {
 public:
  static constexpr char kWaitsFor[] = "peek";

  PeekAwaiter(Inbox* of, std::size_t count) noexcept : PatientReading(of), count_(count) {}
  bool await_ready() { return (count_ == 0 && inbox != nullptr) || PatientReading::await_ready(); }
  /// At the end what there is is enough.
  [[nodiscard]] bool enough() const noexcept {
    const std::size_t unread = inbox->unread();
    return unread >= count_ || (inbox->at_end() && unread > 0);
  }
  Chunk take_enough(Failure& /*failure*/) {
    return inbox->peek(count_ < inbox->unread() ? count_ : inbox->unread());
  }

 private:
  std::size_t count_;
};

}  // namespace weir::detail
