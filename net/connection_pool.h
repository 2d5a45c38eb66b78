#pragma once

#include <weir/coro/semaphore.h>
#include <weir/coro/task.h>
#include <weir/net/resolver.h>
#include <weir/net/tcp_connection.h>

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>

namespace weir {

struct ConnectionPoolOptions {
  /// "db.example:5432", "unix:/path": resolved anew for each connect. A text that is neither shows
  /// there: `acquire` throws `std::invalid_argument`, which `as_tuple` lets pass.
  std::string address = {};

  /// Connections at the same time, those in use, idle and being made.
  std::size_t max_connections = 8;

  /// Closes one that nobody has used for that long; 0: never.
  std::chrono::milliseconds idle_timeout = std::chrono::seconds(60);

  /// How to connect. Its texts are copied by the pool, and what `tls` stands for is kept from the
  /// pool's construction on.
  ConnectOptions connect = {};
};

/// Connections to one server that are used again and again, each by one at a time. Belongs to one
/// loop, that of the first `acquire`; `LoopLocal<ConnectionPool>` makes one for each. What was
/// leased may outlive the pool.
class ConnectionPool {
  struct State;

 public:
  /// A connection in use.
  class [[nodiscard("its connection is closed at once")]] Lease {
   public:
    Lease() noexcept = default;
    Lease(Lease&&) noexcept = default;
    Lease& operator=(Lease&& other) noexcept;
    /// Closes the connection, if it was not given back: nobody knows what is under way on it.
    ~Lease();

    /// The connection is as it was when it was leased, for the next one: what was asked is
    /// answered, and nobody reads or sends. One on which there are unread bytes, or that has ended,
    /// is closed.
    void give_back() noexcept;

    [[nodiscard]] TcpConnection& operator*() noexcept { return connection_; }
    [[nodiscard]] TcpConnection* operator->() noexcept { return &connection_; }
    /// False once it was given back or moved from.
    explicit operator bool() const noexcept { return static_cast<bool>(connection_); }
    /// It has been used before: if it turns out to have ended, that says nothing of the server.
    [[nodiscard]] bool is_reused() const noexcept { return reused_; }

   private:
    friend class ConnectionPool;
    Lease(std::shared_ptr<State> state, Semaphore::Permit place, TcpConnection connection,
          bool reused) noexcept;

    std::shared_ptr<State> state_;
    Semaphore::Permit place_;  // of the state's
    TcpConnection connection_;
    bool reused_ = false;
  };

  /// Throws `std::invalid_argument` naming a bad option.
  explicit ConnectionPool(ConnectionPoolOptions options);
  ConnectionPool(const ConnectionPool&) = delete;
  ConnectionPool& operator=(const ConnectionPool&) = delete;
  /// Closes those that are idle. Whoever still waits for one gets `errc::closed_here`.
  ~ConnectionPool();

  /// `co_await acquire()` gives a connection: the one that was given back last, if it has not ended
  /// since, else a new one. With `max_connections` in use it waits for its turn. Throws what
  /// connecting throws. Dropping it leaves its turn to the next.
  [[nodiscard]] Task<Lease> acquire();

  [[nodiscard]] std::size_t idle() const noexcept;
  /// In use, or being made.
  [[nodiscard]] std::size_t in_use() const noexcept;

 private:
  static Task<Lease> acquire_from(std::shared_ptr<State> state);

  std::shared_ptr<State> state_;
};

}  // namespace weir
