#pragma once

#include <weir/weir.h>

#include <libpq-fe.h>
#include <poll.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

/// PostgreSQL's own library on weir's loop: libpq's asynchronous calls and `ready`.
namespace adapters {

struct PostgresError : std::runtime_error {
  explicit PostgresError(const std::string& text, const char* state = nullptr)
      : std::runtime_error(text), sql_state(state == nullptr ? "" : state) {}
  std::string sql_state;  // empty: the connection failed
};

using PostgresConnection = std::shared_ptr<PGconn>;
using PostgresResult = std::shared_ptr<PGresult>;

/// `info` as for PQconnectdb; a name in it is resolved in the loop's thread, unlike `hostaddr`.
inline weir::Task<PostgresConnection> connect_postgres(std::string info) {
  PostgresConnection c(PQconnectStart(info.c_str()), &PQfinish);
  PostgresPollingStatusType wants = PGRES_POLLING_WRITING;
  while (PQstatus(c.get()) != CONNECTION_BAD && wants != PGRES_POLLING_OK) {
    co_await weir::ready(PQsocket(c.get()), wants == PGRES_POLLING_READING ? POLLIN : POLLOUT);
    wants = PQconnectPoll(c.get());
  }
  if (wants != PGRES_POLLING_OK) throw PostgresError(PQerrorMessage(c.get()));
  PQsetnonblocking(c.get(), 1);
  co_return c;
}

inline void send_statement(PGconn* on, const std::string& sql,
                           const std::vector<std::string>& parameters) {
  std::vector<const char*> values;
  for (const std::string& parameter : parameters) values.push_back(parameter.c_str());
  const auto n = static_cast<int>(values.size());
  if (PQsendQueryParams(on, sql.c_str(), n, nullptr, values.data(), nullptr, nullptr, 0) == 0)
    throw PostgresError(PQerrorMessage(on));
}

/// Throws what the server calls an error.
inline void check_result(const PGresult* result) {
  const ExecStatusType status = PQresultStatus(result);
  if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK) return;
  throw PostgresError(PQresultErrorMessage(result), PQresultErrorField(result, PG_DIAG_SQLSTATE));
}

}  // namespace adapters
