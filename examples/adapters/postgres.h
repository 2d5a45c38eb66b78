#pragma once

#include <string>
#include <utility>
#include <vector>

#include "postgres_connection.h"

namespace adapters {

/// A pool of connections, made as they are needed. Belongs to one loop; outlives its queries.
class Postgres {
 public:
  /// `info` as for `connect_postgres`.
  Postgres(std::string info, std::size_t size) : info_(std::move(info)), free_(size) {}

  /// Runs one statement with `$1`, `$2` … on a connection of its own; waits for one. Dropped: the
  /// server is told to cancel it, and the connection is replaced, as one that broke or was left in
  /// a transaction is. Throws `PostgresError`; what it did is not known if the connection failed.
  weir::Task<PostgresResult> query(std::string sql, std::vector<std::string> parameters = {}) {
    weir::Semaphore::Permit permit = co_await free_.acquire();
    Lease lease{*this, std::move(permit), take_idle()};
    if (lease.connection == nullptr) lease.connection = co_await connect_postgres(info_);
    PGconn* on = lease.connection.get();
    send_statement(on, sql, parameters);
    while (PQflush(on) > 0) {
      co_await weir::ready(PQsocket(on), POLLIN | POLLOUT);
      PQconsumeInput(on);  // an error is told below
    }
    const PostgresResult result = co_await next_result(on);
    const ExecStatusType status = PQresultStatus(result.get());
    if (status != PGRES_COPY_IN && status != PGRES_COPY_OUT) (void)co_await next_result(on);
    check_result(result.get());
    co_return result;
  }

 private:
  struct Lease {
    Postgres& pool;
    weir::Semaphore::Permit permit;
    PostgresConnection connection;
    ~Lease() { pool.take_back(*this); }
  };

  static weir::Task<PostgresResult> next_result(PGconn* on) {
    while (PQisBusy(on) != 0) {
      co_await weir::readable(PQsocket(on));
      if (PQconsumeInput(on) == 0) throw PostgresError(PQerrorMessage(on));
    }
    co_return PostgresResult(PQgetResult(on), &PQclear);
  }

  /// A connection that has something to say while nothing was asked is about to end.
  PostgresConnection take_idle() {
    PostgresConnection taken;
    while (taken == nullptr && !idle_.empty()) {
      pollfd spoken{PQsocket(idle_.back().get()), POLLIN, 0};
      if (::poll(&spoken, 1, 0) == 0) taken = std::move(idle_.back());
      idle_.pop_back();
    }
    return taken;
  }

  void take_back(Lease& lease) {
    const PGTransactionStatusType status = PQtransactionStatus(lease.connection.get());
    if (status == PQTRANS_IDLE) idle_.push_back(std::move(lease.connection));
    if (status == PQTRANS_ACTIVE) cancels_.spawn(cancel(lease.connection, std::move(lease.permit)));
  }

  /// PQcancel(3) connects, and blocks. What is cancelled counts as a connection until then.
  static weir::Task<> cancel(PostgresConnection connection, weir::Semaphore::Permit /*permit*/) {
    auto job = [connection = std::move(connection)] {
      PGcancel* cancel = PQgetCancel(connection.get());
      char problem[256];
      PQcancel(cancel, problem, sizeof problem);
      PQfreeCancel(cancel);
    };
    co_await weir::blocking(std::move(job));
  }

  std::string info_;
  std::vector<PostgresConnection> idle_;
  weir::Semaphore free_;
  weir::TaskGroup cancels_;
};

}  // namespace adapters
