#pragma once

#include <weir/core/engine.h>
#include <weir/net/socket_address.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>

namespace weir::test {

using namespace weir::detail;  // NOLINT: what is tested

/// What the plain code of a test has of the machine that it runs on, apart from weir: sockets whose
/// calls block, threads, descriptors. There is the real one, and a simulated one while a body runs
/// on the simulation. Socket calls give what the system call gives, with -errno for an error.
class TestMachine {
 public:
  TestMachine() = default;
  TestMachine(const TestMachine&) = delete;
  TestMachine& operator=(const TestMachine&) = delete;
  virtual ~TestMachine() = default;

  /// The one that the calling thread is on.
  static TestMachine& current();

  /// The calls that do not block.
  [[nodiscard]] virtual Sockets& sockets() noexcept = 0;

  /// A descriptor for the other calls, connected. With `buffer_bytes`, small buffers.
  virtual int connect(const SocketAddress& address, int buffer_bytes) = 0;
  /// At least one byte, or -EAGAIN: where nothing goes at once, or if it `waits`, within patience.
  virtual std::int64_t send(int fd, std::string_view bytes, bool waits) = 0;
  /// 0 at the end of the stream.
  virtual std::int64_t receive(int fd, std::span<char> into, bool waits) = 0;
  /// The poll(2) bits that hold of a descriptor now.
  [[nodiscard]] virtual std::uint32_t look_at(int fd) = 0;
  /// How many bytes its kernel has taken in for it so far; a FIN may count for one.
  [[nodiscard]] virtual std::uint64_t arrived(int fd) = 0;

  /// Something that runs; its destructor waits for the end.
  class Running {
   public:
    Running() = default;
    Running(const Running&) = delete;
    Running& operator=(const Running&) = delete;
    virtual ~Running() = default;
  };
  /// The function must not throw.
  virtual std::unique_ptr<Running> start_thread(std::function<void()> function) = 0;
  /// Lets others run.
  virtual void yield() = 0;

  /// How long a turn of a loop takes in which what is on its way over loopback arrives: no time
  /// where it arrives before the call that sends it returns.
  [[nodiscard]] virtual Duration turn() const noexcept = 0;

  /// Those of this process.
  [[nodiscard]] virtual std::size_t open_descriptors() = 0;
  /// Lowers the limit of descriptors to those that are open now; or sets it back.
  virtual void deny_descriptors(bool denied) = 0;
};

}  // namespace weir::test
