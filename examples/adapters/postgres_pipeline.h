#pragma once

#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "postgres_connection.h"

namespace adapters {

/// One connection with any number of statements under way (libpq's pipeline mode), answered in
/// order, each a transaction of its own: no BEGIN, others' statements would be in it, no COPY.
/// Belongs to one loop; outlives its queries. When it breaks all of them end in a `PostgresError`
/// without a state, and what they did is not known; make another then.
class PostgresPipeline {
 public:
  /// Begins to connect, with `info` as for `connect_postgres`.
  explicit PostgresPipeline(std::string info) { tasks_.spawn(run(std::move(info))); }

  /// Sends one statement with `$1`, `$2` … behind those under way. Dropped: it is done all the
  /// same, and its result thrown away. Throws `PostgresError`.
  weir::Task<PostgresResult> query(std::string sql, std::vector<std::string> parameters = {}) {
    co_await connected_.wait();
    const auto answer = std::make_shared<Answer>();
    send(sql, parameters);
    answers_.push_back(answer);
    co_await answer->done.wait();
    if (answer->result == nullptr) throw PostgresError(problem_);
    check_result(answer->result.get());
    co_return std::move(answer->result);
  }

 private:
  struct Answer {
    weir::Event done = {};
    PostgresResult result = {};
  };

  void send(const std::string& sql, const std::vector<std::string>& parameters) {
    if (!problem_.empty()) throw PostgresError(problem_);
    PGconn* on = connection_.get();
    send_statement(on, sql, parameters);
    if (PQpipelineSync(on) == 0) throw PostgresError(PQerrorMessage(on));
    if (PQflush(on) != 0) unsent_.set();
  }

  weir::Task<> run(std::string info) {
    try {
      connection_ = co_await connect_postgres(std::move(info));
      PQenterPipelineMode(connection_.get());
      connected_.set();
      co_await weir::when_any(read(), write());
      problem_ = PQerrorMessage(connection_.get());
    } catch (const PostgresError& error) {
      problem_ = error.what();
    }
    if (problem_.empty()) problem_ = "the connection has ended, or is in COPY";
    connected_.set();
    for (const auto& answer : std::exchange(answers_, {})) {
      answer->result.reset();
      answer->done.set();
    }
  }

  /// Until the connection is of no more use.
  weir::Task<> read() {
    while (take_results()) {
      co_await weir::readable(PQsocket(connection_.get()));
      if (PQconsumeInput(connection_.get()) == 0) co_return;
    }
  }
  weir::Task<> write() {
    for (;;) {
      co_await unsent_.wait();
      unsent_.reset();
      while (PQflush(connection_.get()) > 0) co_await weir::writable(PQsocket(connection_.get()));
    }
  }

  /// Of each statement come its result, a null pointer and PGRES_PIPELINE_SYNC.
  bool take_results() {
    while (!answers_.empty() && PQisBusy(connection_.get()) == 0) {
      PGresult* result = PQgetResult(connection_.get());
      const ExecStatusType status = PQresultStatus(result);
      if (status == PGRES_PIPELINE_SYNC) {
        PQclear(result);
        answers_.front()->done.set();
        answers_.pop_front();
      } else if (result != nullptr) {
        answers_.front()->result.reset(result, &PQclear);
        if (status == PGRES_COPY_IN || status == PGRES_COPY_OUT) return false;
      } else if (PQstatus(connection_.get()) == CONNECTION_BAD) {
        return false;
      }
    }
    return true;
  }

  PostgresConnection connection_;
  std::string problem_;  // what broke it
  std::deque<std::shared_ptr<Answer>> answers_;
  weir::Event connected_;
  weir::Event unsent_;
  weir::TaskGroup tasks_;
};

}  // namespace adapters
