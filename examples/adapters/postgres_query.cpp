// postgres_query CONNECTION STATEMENT...: runs all of them at once, four at a time, and prints
// their rows. CONNECTION is what psql takes: "host=/run/postgresql dbname=postgres".
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "postgres.h"

using namespace weir;

namespace {

Task<std::string> rows_of(adapters::Postgres& postgres, std::string statement) {
  std::string text;
  try {
    const adapters::PostgresResult result = co_await postgres.query(statement);
    for (int row = 0; row < PQntuples(result.get()); ++row) {
      for (int column = 0; column < PQnfields(result.get()); ++column) {
        text += (column == 0 ? "" : "\t") + std::string(PQgetvalue(result.get(), row, column));
      }
      text += '\n';
    }
  } catch (const adapters::PostgresError& error) {
    text = error.what();
  }
  co_return text;
}

Task<> query_all(std::string connection, std::vector<std::string> statements) {
  adapters::Postgres postgres(connection, 4);
  std::vector<Task<std::string>> queries;
  for (std::string& statement : statements) queries.push_back(rows_of(postgres, statement));
  const std::vector<std::string> all = co_await when_all(std::move(queries));
  for (const std::string& rows : all) std::fputs(rows.c_str(), stdout);
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 2) throw std::invalid_argument("usage: postgres_query CONNECTION STATEMENT...");
  run(query_all(argv[1], {argv + 2, argv + argc}));
} catch (const std::exception& error) {
  std::fprintf(stderr, "postgres_query: %s\n", error.what());
  return 1;
}
