// "SELECT $1::int", one in flight on each of many connections (`own`, `weir`), or many in one
// (`own-pipeline`, `weir-pipeline`): libpq in a loop of poll(2), and on weir. `--server` is what
// PQconnectdb takes.
#include <exception>
#include <vector>

#include "../../examples/adapters/postgres.h"
#include "../../examples/adapters/postgres_pipeline.h"
#include "load.h"

namespace {

const char* const kStatement = "SELECT $1::int";
const char* const kValue = "7";

void check(const PGresult* result) {
  load::require(PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1 &&
                    PQgetvalue(result, 0, 0) == std::string_view(kValue),
                "a wrong result");
}

// ---- libpq in a loop of poll(2) ----

PGconn* connect(const load::Options& options) {
  PGconn* on = PQconnectdb(options.server.c_str());
  load::require(PQstatus(on) == CONNECTION_OK, "no connection");
  PQsetnonblocking(on, 1);
  return on;
}

void send(PGconn* on) {
  load::require(PQsendQueryParams(on, kStatement, 1, nullptr, &kValue, nullptr, nullptr, 0) == 1 &&
                    (PQpipelineStatus(on) == PQ_PIPELINE_OFF || PQpipelineSync(on) == 1),
                PQerrorMessage(on));
}

/// Sends what is left, and sets what to wait for.
void flush(PGconn* on, pollfd& wanted) {
  wanted = {PQsocket(on), POLLIN, 0};
  if (PQflush(on) > 0) wanted.events |= POLLOUT;
}

void own_pool(const load::Options& options, load::Meter& meter) {
  std::vector<PGconn*> connections;
  std::vector<pollfd> wanted(options.in_flight);
  for (std::size_t i = 0; i < options.in_flight; ++i) {
    connections.push_back(connect(options));
    send(connections[i]);
    flush(connections[i], wanted[i]);
  }
  for (std::size_t under_way = options.in_flight; under_way != 0;) {
    ::poll(wanted.data(), wanted.size(), -1);
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      if (wanted[i].revents == 0) continue;
      PGconn* on = connections[i];
      load::require(PQconsumeInput(on) == 1, "the connection has ended");
      bool idle = false;
      while (!idle && PQisBusy(on) == 0) {
        PGresult* result = PQgetResult(on);
        idle = result == nullptr;
        if (!idle) check(result);
        PQclear(result);
      }
      if (idle && !meter.done()) {
        wanted[i].fd = -1;
        --under_way;
        continue;
      }
      if (idle) send(on);
      flush(on, wanted[i]);
    }
  }
  for (PGconn* on : connections) PQfinish(on);
}

void own_pipeline(const load::Options& options, load::Meter& meter) {
  PGconn* on = connect(options);
  PQenterPipelineMode(on);
  for (std::size_t i = 0; i < options.in_flight; ++i) send(on);
  pollfd wanted{};
  for (std::size_t under_way = options.in_flight; under_way != 0;) {
    flush(on, wanted);
    ::poll(&wanted, 1, -1);
    load::require(PQconsumeInput(on) == 1, "the connection has ended");
    while (under_way != 0 && PQisBusy(on) == 0) {
      PGresult* result = PQgetResult(on);
      if (PQresultStatus(result) == PGRES_PIPELINE_SYNC) {
        meter.done() ? send(on) : void(--under_way);
      } else if (result != nullptr) {
        check(result);
      }
      PQclear(result);
    }
  }
  PQfinish(on);
}

// ---- weir ----

template <class Postgres>
weir::Task<> client(Postgres& postgres, load::Meter& meter) {
  for (bool more = true; more; more = meter.done()) {
    std::vector<std::string> parameters = {kValue};
    const adapters::PostgresResult result =
        co_await postgres.query(kStatement, std::move(parameters));
    check(result.get());
  }
}

template <class Postgres>
weir::Task<> weir_loop(Postgres postgres, const load::Options& options, load::Meter& meter) {
  std::vector<weir::Task<>> clients;
  for (std::size_t i = 0; i < options.in_flight; ++i) clients.push_back(client(*postgres, meter));
  co_await weir::when_all(std::move(clients));
}

weir::Task<> weir_pool(const load::Options& options, load::Meter& meter) {
  adapters::Postgres postgres(options.server, options.in_flight);
  co_await weir_loop(&postgres, options, meter);
}
weir::Task<> weir_pipeline(const load::Options& options, load::Meter& meter) {
  adapters::PostgresPipeline postgres(options.server);
  co_await weir_loop(&postgres, options, meter);
}

}  // namespace

int main(int argc, char** argv) try {
  const load::Options options(argc, argv);
  load::Meter meter(options);
  if (options.loop == "own") {
    own_pool(options, meter);
  } else if (options.loop == "own-pipeline") {
    own_pipeline(options, meter);
  } else if (options.loop == "weir") {
    weir::run(weir_pool(options, meter));
  } else {
    weir::run(weir_pipeline(options, meter));
  }
  meter.print();
} catch (const std::exception& error) {
  std::fprintf(stderr, "postgres_loops: %s\n", error.what());
  return 1;
}
