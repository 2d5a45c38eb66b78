#pragma once

#include <weir/weir.h>

#include <libpq-fe.h>
#include <poll.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

/// PostgreSQL's own library on weir's loop: libpq's asynchronous calls and `ready`.
namespace adapters {

struct PostgresError : std::runtime_error {
  PostgresError(const std::string& text, const char* state)
      : std::runtime_error(text), sql_state(state == nullptr ? "" : state) {}
  std::string sql_state;  // empty: the connection failed
};

using PostgresResult = std::shared_ptr<PGresult>;

/// A pool of connections, made as they are needed. Belongs to one loop; outlives its queries.
class Postgres {
 public:
  /// `info` as for PQconnectdb; a name in it is resolved in the loop's thread, unlike `hostaddr`.
  Postgres(std::string info, std::size_t size) : info_(std::move(info)), free_(size) {}

  /// Runs one statement with `$1`, `$2` … on a connection of its own; waits for one. Dropped: the
  /// server is told to cancel it, and the connection is replaced, as one that broke or was left in
  /// a transaction is. Throws `PostgresError`; what it did is not known if the connection failed.
  weir::Task<PostgresResult> query(std::string sql, std::vector<std::string> parameters = {}) {
    std::vector<const char*> values;
    for (const std::string& parameter : parameters) values.push_back(parameter.c_str());
    weir::Semaphore::Permit permit = co_await free_.acquire();
    Lease lease{*this, std::move(permit), take_idle()};
    if (lease.connection == nullptr) lease.connection = co_await connect();
    PGconn* on = lease.connection.get();
    const auto n = static_cast<int>(values.size());
    if (!PQsendQueryParams(on, sql.c_str(), n, nullptr, values.data(), nullptr, nullptr, 0))
      throw PostgresError(PQerrorMessage(on), nullptr);
    while (PQflush(on) > 0) {
      co_await weir::ready(PQsocket(on), POLLIN | POLLOUT);
      PQconsumeInput(on);  // an error is told below
    }
    const PostgresResult result = co_await next_result(on);
    const ExecStatusType status = PQresultStatus(result.get());
    if (status != PGRES_COPY_IN && status != PGRES_COPY_OUT) (void)co_await next_result(on);
    const char* problem = PQresultErrorField(result.get(), PG_DIAG_SQLSTATE);
    if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
      throw PostgresError(PQresultErrorMessage(result.get()), problem);
    co_return result;
  }

 private:
  using Connection = std::shared_ptr<PGconn>;
  struct Lease {
    Postgres& pool;
    weir::Semaphore::Permit permit;
    Connection connection;
    ~Lease() { pool.take_back(*this); }
  };

  static weir::Task<PostgresResult> next_result(PGconn* on) {
    while (PQisBusy(on) != 0) {
      co_await weir::readable(PQsocket(on));
      if (PQconsumeInput(on) == 0) throw PostgresError(PQerrorMessage(on), nullptr);
    }
    co_return PostgresResult(PQgetResult(on), &PQclear);
  }

  /// A connection that has something to say while nothing was asked is about to end.
  Connection take_idle() {
    Connection taken;
    while (taken == nullptr && !idle_.empty()) {
      pollfd spoken{PQsocket(idle_.back().get()), POLLIN, 0};
      if (::poll(&spoken, 1, 0) == 0) taken = std::move(idle_.back());
      idle_.pop_back();
    }
    return taken;
  }

  weir::Task<Connection> connect() {
    Connection c(PQconnectStart(info_.c_str()), &PQfinish);
    PostgresPollingStatusType wants = PGRES_POLLING_WRITING;
    while (PQstatus(c.get()) != CONNECTION_BAD && wants != PGRES_POLLING_OK) {
      co_await weir::ready(PQsocket(c.get()), wants == PGRES_POLLING_READING ? POLLIN : POLLOUT);
      wants = PQconnectPoll(c.get());
    }
    if (wants != PGRES_POLLING_OK) throw PostgresError(PQerrorMessage(c.get()), nullptr);
    PQsetnonblocking(c.get(), 1);
    co_return c;
  }

  void take_back(Lease& lease) {
    const PGTransactionStatusType status = PQtransactionStatus(lease.connection.get());
    if (status == PQTRANS_IDLE) idle_.push_back(std::move(lease.connection));
    if (status == PQTRANS_ACTIVE) cancels_.spawn(cancel(lease.connection, std::move(lease.permit)));
  }

  /// PQcancel(3) connects, and blocks. What is cancelled counts as a connection until then.
  static weir::Task<> cancel(Connection connection, weir::Semaphore::Permit /*permit*/) {
    auto job = [connection = std::move(connection)] {
      PGcancel* cancel = PQgetCancel(connection.get());
      char problem[256];
      PQcancel(cancel, problem, sizeof problem);
      PQfreeCancel(cancel);
    };
    co_await weir::blocking(std::move(job));
  }

  std::string info_;
  std::vector<Connection> idle_;
  weir::Semaphore free_;
  weir::TaskGroup cancels_;
};

}  // namespace adapters
