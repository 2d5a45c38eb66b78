#pragma once

#include <weir/core/engine.h>
#include <weir/core/metrics.h>
#include <weir/core/options.h>
#include <weir/io/engines.h>

#include <doctest/doctest.h>
#include <poll.h>

#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../support/net.h"
#include "../support/simulation.h"

#ifndef POLLRDHUP
#define POLLRDHUP 0x2000
#endif

/// What the tests of the engines share: the loop's door without a loop.
namespace weir::test {

using namespace weir::detail;  // NOLINT: what is tested

/// An operation that notes what becomes of it.
class Request : public Operation {
 public:
  Request(OperationKind what, int descriptor)
      : Operation(what, [](Operation& operation, Completion completion) noexcept {
          static_cast<Request&>(operation).take(completion);
        }) {
    fd = descriptor;
  }

  static std::unique_ptr<Request> accept(int fd) { return make(OperationKind::accept, fd); }
  static std::unique_ptr<Request> receive(int fd) { return make(OperationKind::receive, fd); }
  static std::unique_ptr<Request> receive_into(int fd, std::size_t most) {
    auto request = make(OperationKind::receive_into, fd);
    request->use_memory(most);
    request->Operation::receive_into(request->part_.data, request->part_.size);
    return request;
  }
  static std::unique_ptr<Request> read_file(int fd, std::size_t most, std::uint64_t from) {
    auto request = make(OperationKind::read_file, fd);
    request->use_memory(most);
    request->Operation::read_file(request->part_);
    request->part_.offset = from;
    return request;
  }
  static std::unique_ptr<Request> poll(int fd, std::uint32_t what) {
    auto request = make(OperationKind::poll, fd);
    request->Operation::poll(what);
    return request;
  }
  static std::unique_ptr<Request> send(int fd, std::vector<std::string_view> pieces) {
    auto request = make(OperationKind::send, fd);
    for (const std::string_view piece : pieces) {
      request->pieces_.push_back({piece.data(), piece.size()});
    }
    request->Operation::send(request->pieces_.data(),
                             static_cast<std::uint32_t>(request->pieces_.size()));
    return request;
  }

  /// As it should stand in a list of every kind of operation, one each.
  static std::vector<std::unique_ptr<Request>> one_of_each(int listener, int socket, int file) {
    std::vector<std::unique_ptr<Request>> all;
    all.push_back(accept(listener));
    all.push_back(receive(socket));
    all.push_back(receive_into(socket, 16));
    all.push_back(send(socket, {"x"}));
    all.push_back(poll(socket, POLLIN));
    all.push_back(read_file(file, 16, 0));
    return all;
  }

  [[nodiscard]] bool done() const noexcept { return !in_flight() && !results.empty(); }
  [[nodiscard]] int last() const { return results.at(results.size() - 1); }

  std::vector<int> results;
  int endings = 0;  // completions without `more`
  std::string bytes;
  std::vector<BufferRef> leases;  // of what was received, if `keep_leases`
  bool keep_leases = false;
  std::function<void(Request&)> then;  // in the completion

 private:
  static std::unique_ptr<Request> make(OperationKind what, int fd) {
    return std::make_unique<Request>(what, fd);
  }
  void use_memory(std::size_t most) {
    memory_.resize(most);
    part_ = {reinterpret_cast<std::byte*>(memory_.data()), 0, static_cast<std::uint32_t>(most)};
  }

  void take(const Completion& completion) noexcept {
    results.push_back(completion.result);
    if (!completion.more) ++endings;
    if (completion.buffer != nullptr) {
      BufferRef lease(*completion.buffer);
      bytes.append(reinterpret_cast<const char*>(lease->data()),
                   static_cast<std::size_t>(completion.result));
      if (keep_leases) leases.push_back(std::move(lease));
    } else if (!memory_.empty() && completion.result > 0) {
      bytes.append(memory_, 0, static_cast<std::size_t>(completion.result));
    }
    if (then) then(*this);
  }

  std::vector<Slice> pieces_;
  std::string memory_;
  FilePart part_{nullptr, 0, 0};
};

/// What is behind a door: an engine of the real kernel, or the simulated one.
class Behind {
 public:
  using Maker = std::function<std::unique_ptr<IoEngine>(const LoopOptions&)>;

  explicit Behind(Maker maker) : maker_(std::move(maker)) {}
  Behind(Engine engine)
      : maker_([engine](LoopOptions options) {
          options.engine = engine;
          return make_engine(options);
        }) {}
  explicit Behind(SimulatedNetwork& network)
      : maker_([&network](const LoopOptions& options) { return network.make_engine(options); }),
        network_(&network) {}

  [[nodiscard]] std::unique_ptr<IoEngine> make(const LoopOptions& options) const {
    return maker_(options);
  }
  [[nodiscard]] SimulatedNetwork* network() const noexcept { return network_; }

 private:
  Maker maker_;
  SimulatedNetwork* network_ = nullptr;
};

/// Calls the body with each engine that this machine has, and with the simulated one.
inline void on_each_door(const std::function<void(const Behind&)>& body) {
  for_each_engine([&](Engine engine) { body(engine); });
  INFO("engine: simulation");
  SimulatedNetwork network;
  body(Behind(network));
}

/// An engine, attached to this thread.
class Door {
 public:
  explicit Door(const Behind& behind, const LoopOptions& options = {})
      : network_(behind.network()), engine_(behind.make(options)) {
    engine_->attach();
  }
  Door(const Door&) = delete;
  Door& operator=(const Door&) = delete;
  ~Door() { CHECK(engine_->idle()); }

  IoEngine* operator->() const noexcept { return engine_.get(); }

  /// Looks once, without waiting. What was on its way over loopback has arrived then.
  void look() {
    engine_->wait(TimePoint::min());
    if (network_ == nullptr) return;
    network_->pass(network_->turn());
    engine_->wait(TimePoint::min());
  }

  /// Waits until the condition holds. Throws if that takes too long.
  template <class Condition>
  void until(Condition condition) {
    const TimePoint end = now() + kPatience;
    while (!condition()) {
      if (now() > end) throw std::runtime_error("Door::until: in vain");
      if (network_ == nullptr) {
        engine_->wait(end);
        continue;
      }
      engine_->wait(TimePoint::min());  // its own wait would keep threads waiting
      if (!condition() && !network_->advance()) {
        throw std::runtime_error("Door::until: nothing is left to happen");
      }
    }
  }
  /// Of the machine that the engine is on.
  [[nodiscard]] static Sockets& sockets() { return TestMachine::current().sockets(); }
  [[nodiscard]] TimePoint now() const {
    return network_ == nullptr ? weir::detail::process_machine().now() : network_->now();
  }
  void until_done(const Request& request) {
    until([&request] { return request.done(); });
  }

  void submit(Request& request) { engine_->submit(request); }
  void cancel(Request& request) { engine_->cancel(request); }
  /// Ends it, whatever it is at.
  void end(Request& request) {
    engine_->cancel(request);
    until([&request] { return !request.in_flight(); });
  }

  [[nodiscard]] Metrics metrics() const {
    Metrics metrics;
    engine_->add_metrics(metrics);
    return metrics;
  }

 private:
  SimulatedNetwork* network_;
  std::unique_ptr<IoEngine> engine_;
};

/// A descriptor that the test closes: of the machine that it is on, or of other sockets.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : Descriptor(fd, TestMachine::current().sockets()) {}
  Descriptor(int fd, Sockets& sockets) : sockets_(&sockets), fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept
      : sockets_(other.sockets_), fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(sockets_, other.sockets_);
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() { close(); }

  [[nodiscard]] int get() const noexcept { return fd_; }
  [[nodiscard]] int release() noexcept { return std::exchange(fd_, -1); }
  void close() noexcept {
    if (const int fd = std::exchange(fd_, -1); fd >= 0) sockets_->close(fd);
  }

 private:
  Sockets* sockets_ = nullptr;
  int fd_ = -1;
};

/// Two ends of a TCP connection: weir's and a plain one.
struct Ends {
  Descriptor ours;
  Peer peer;
};
inline Ends ends(int buffer_bytes = 0) {
  const auto [ours, theirs] = tcp_pair(buffer_bytes);
  return {Descriptor(ours), Peer(theirs)};
}

/// A non-blocking listener on loopback.
struct Listening {
  Descriptor fd;
  SocketAddress address;
};
inline Listening listening(Sockets& sockets, int backlog = 128) {
  Descriptor fd(sockets.open(AF_INET));
  REQUIRE(sockets.bind(fd.get(), own_loopback().raw()) == 0);
  REQUIRE(sockets.listen(fd.get(), backlog) == 0);
  RawAddress bound;
  REQUIRE(sockets.local_address(fd.get(), bound) == 0);
  return {std::move(fd), SocketAddress(bound)};
}

}  // namespace weir::test
