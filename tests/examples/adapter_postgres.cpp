// libpq on weir's loop against PostgreSQL.
#include <doctest/doctest.h>
#include <pwd.h>
#include <unistd.h>

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "../../examples/adapters/postgres.h"
#include "../../examples/adapters/postgres_pipeline.h"
#include "example.h"
#include "service.h"

using namespace weir;
using namespace weir::test;

namespace {

/// A server with a fresh cluster, on a Unix socket; nobody's who is root.
class PostgresServer {
 public:
  explicit PostgresServer(std::string program) : program_(std::move(program)) {
    if (!user().empty()) {
      const passwd* entry = ::getpwnam(user().c_str());
      REQUIRE(::chown(directory_.file("").c_str(), entry->pw_uid, entry->pw_gid) == 0);
    }
    const std::string initdb = program_.substr(0, program_.rfind('/')) + "/initdb";
    Service making(initdb,
                   {"-D", directory_.file("data"), "-A", "trust", "-U", "weir", "--no-sync",
                    "--locale=C", "-E", "UTF8"},
                   SIGTERM, user());
    making.wait_for_line("Success");
    REQUIRE(making.wait() == 0);
    start();
  }

  void start() {
    service_.emplace(
        program_,
        std::vector<std::string>{"-D", directory_.file("data"), "-k", directory_.file(""), "-c",
                                 "listen_addresses=", "-c", "fsync=off"},
        SIGINT, user());
    service_->wait_for_line("ready to accept connections");
  }
  /// What is under way is broken off.
  void stop() { service_.reset(); }
  [[nodiscard]] std::string info() const {
    return "host=" + directory_.file("") + " dbname=postgres user=weir";
  }

  /// The program; empty, with the reason printed, where this is no place for it.
  static std::string program() {
    if (!user().empty() && ::getpwnam(user().c_str()) == nullptr) {
      MESSAGE("skipped: there is no user postgres, and PostgreSQL refuses root");
      return {};
    }
    return service_program("postgres");
  }

 private:
  static std::string user() { return ::geteuid() == 0 ? "postgres" : ""; }

  std::string program_;
  Directory directory_;
  std::optional<Service> service_;
};

std::string value_of(const adapters::PostgresResult& result, int column = 0) {
  return PQgetvalue(result.get(), 0, column);
}

template <class Postgres>
Task<std::string> one_value(Postgres& postgres, std::string sql) {
  const adapters::PostgresResult result = co_await postgres.query(sql);
  co_return value_of(result);
}

/// The SQL state of what it throws.
template <class Postgres>
Task<std::string> failure(Postgres& postgres, std::string sql) {
  std::string state = "none";
  try {
    (void)co_await postgres.query(sql);
  } catch (const adapters::PostgresError& error) {
    state = error.sql_state;
  }
  co_return state;
}

template <class Postgres>
Task<> double_it(Postgres& postgres, int number, std::set<std::string>& backends) {
  const std::vector<std::string> parameters = {std::to_string(number)};
  const adapters::PostgresResult result =
      co_await postgres.query("SELECT $1::int * 2, pg_backend_pid()", parameters);
  CHECK(value_of(result) == std::to_string(number * 2));
  backends.insert(value_of(result, 1));
}

/// Until the server runs so many statements that begin like that.
Task<> until_running(adapters::Postgres& postgres, std::string count) {
  const std::string sql =
      "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT "
      "pg_sleep%'";
  for (std::string now; now != count;) now = co_await one_value(postgres, sql);
}

}  // namespace

TEST_CASE("PostgreSQL answers a pool, loses who is dropped, and comes back from a restart") {
  const std::string program = PostgresServer::program();
  if (program.empty()) return;
  PostgresServer server(program);
  on_each_kernel_engine("libpq has sockets of its own", [&]() -> Task<> {
    const std::size_t descriptors = count_descriptors();
    {
      adapters::Postgres postgres(server.info(), 4);
      std::set<std::string> backends;
      TaskGroup queries;
      for (int i = 0; i < 200; ++i) queries.spawn(double_it(postgres, i, backends));
      co_await queries.join();
      CHECK(backends.size() <= 4);

      // Who is dropped in the middle is cancelled, and the pool stays as large as it is.
      adapters::Postgres onlooker(server.info(), 1);
      {
        TaskGroup dropped;
        for (int i = 0; i < 2; ++i) dropped.spawn(postgres.query("SELECT pg_sleep(600)"));
        co_await until_running(onlooker, "2");
        dropped.cancel();
      }
      co_await until_running(onlooker, "0");
      {
        TaskGroup all;
        for (int i = 0; i < 5; ++i) all.spawn(postgres.query("SELECT pg_sleep(600)"));
        co_await until_running(onlooker, "4");
      }
      std::set<std::string> later;
      for (int i = 0; i < 200; ++i) queries.spawn(double_it(postgres, i, later));
      co_await queries.join();
      CHECK(later.size() <= 4);
      for (const std::string& backend : later) CHECK(backends.count(backend) == 0);

      // Dropped in every other state of theirs.
      for (int i = 0; i < 50; ++i) {
        adapters::Postgres fresh(server.info(), 1);
        TaskGroup dropped;
        dropped.spawn(fresh.query("SELECT pg_backend_pid()"));
        for (int turn = 0; turn < i / 5 && dropped.size() != 0; ++turn) co_await yield();
      }
    }
    // Cancels that were under way close their connections in the pool's threads.
    for (std::size_t now = 0; now != descriptors; now = count_descriptors()) co_await yield();
  });
}

TEST_CASE("errors of SQL leave the connection, a transaction and an end of the server do not") {
  const std::string program = PostgresServer::program();
  if (program.empty()) return;
  PostgresServer server(program);
  on_each_kernel_engine("libpq has sockets of its own", [&]() -> Task<> {
    adapters::Postgres postgres(server.info(), 1);
    const std::string pid = co_await one_value(postgres, "SELECT pg_backend_pid()");
    const std::string state = co_await failure(postgres, "SELECT 1/0");
    CHECK(state == "22012");
    const std::string same = co_await one_value(postgres, "SELECT pg_backend_pid()");
    CHECK(same == pid);
    (void)co_await postgres.query("BEGIN");
    const std::string other = co_await one_value(postgres, "SELECT pg_backend_pid()");
    CHECK(other != pid);
    const std::string copy = co_await failure(postgres, "COPY pg_class TO STDOUT");
    CHECK(copy.empty());
    const std::string long_one =
        co_await one_value(postgres, "SELECT repeat('weir', 1000000)");  // in many pieces
    CHECK(long_one.size() == 4'000'000);

    // A statement is under way when the server ends; the idle ones hear of it too.
    adapters::Postgres idle(server.info(), 2);
    (void)co_await one_value(idle, "SELECT 1");
    std::string told;
    TaskGroup waiting;
    waiting.spawn([&]() -> Task<> { told = co_await failure(postgres, "SELECT pg_sleep(600)"); });
    co_await until_running(idle, "1");
    server.stop();
    co_await waiting.join();
    CHECK(told != "none");
    const std::string nobody = co_await failure(idle, "SELECT 1");
    CHECK(nobody.empty());
    server.start();
    const std::string again = co_await one_value(postgres, "SELECT 1");
    CHECK(again == "1");
    const std::string idle_again = co_await one_value(idle, "SELECT 1");
    CHECK(idle_again == "1");
  });
}

TEST_CASE("two hundred statements are under way in one connection, and errors are their own") {
  const std::string program = PostgresServer::program();
  if (program.empty()) return;
  PostgresServer server(program);
  on_each_kernel_engine("libpq has sockets of its own", [&]() -> Task<> {
    const std::size_t descriptors = count_descriptors();
    {
      adapters::PostgresPipeline postgres(server.info());
      std::set<std::string> backends;
      std::string state;
      TaskGroup queries;
      for (int i = 0; i < 200; ++i) {
        queries.spawn(double_it(postgres, i, backends));
        if (i != 100) continue;
        queries.spawn([&]() -> Task<> { state = co_await failure(postgres, "SELECT 1/0"); });
      }
      co_await queries.join();
      CHECK(backends.size() == 1);
      CHECK(state == "22012");

      // Much in both directions at once.
      const std::string much(300'000, 'x');
      int whole = 0;
      for (int i = 0; i < 20; ++i) {
        queries.spawn([&]() -> Task<> {
          const std::vector<std::string> parameters = {much};
          const auto result = co_await postgres.query("SELECT $1::text", parameters);
          if (value_of(result) == much) ++whole;
        });
      }
      co_await queries.join();
      CHECK(whole == 20);

      // Who is dropped has his statement done, and nobody else gets its result.
      (void)co_await postgres.query("CREATE TEMPORARY TABLE told (number int)");
      {
        TaskGroup dropped;
        for (int i = 0; i < 5; ++i) dropped.spawn(postgres.query("INSERT INTO told VALUES (1)"));
        co_await yield();
      }
      const std::string told = co_await one_value(postgres, "SELECT count(*) FROM told");
      CHECK(told == "5");
    }
    CHECK(count_descriptors() == descriptors);
  });
}

TEST_CASE("what is under way in a pipeline ends with its connection, and later statements too") {
  const std::string program = PostgresServer::program();
  if (program.empty()) return;
  PostgresServer server(program);
  on_each_kernel_engine("libpq has sockets of its own", [&]() -> Task<> {
    adapters::Postgres onlooker(server.info(), 1);
    adapters::PostgresPipeline copying(server.info());
    const std::string copy = co_await failure(copying, "COPY pg_class TO STDOUT");
    CHECK(copy.empty());
    const std::string after = co_await failure(copying, "SELECT 1");
    CHECK(after.empty());

    adapters::PostgresPipeline postgres(server.info());
    std::string first;
    std::string second;
    TaskGroup waiting;
    waiting.spawn([&]() -> Task<> { first = co_await failure(postgres, "SELECT pg_sleep(600)"); });
    waiting.spawn([&]() -> Task<> { second = co_await failure(postgres, "SELECT 1"); });
    co_await until_running(onlooker, "1");
    server.stop();
    co_await waiting.join();
    CHECK(first.empty());
    CHECK(second.empty());
    const std::string later = co_await failure(postgres, "SELECT 1");
    CHECK(later.empty());
    adapters::PostgresPipeline never(server.info());
    const std::string nobody = co_await failure(never, "SELECT 1");
    CHECK(nobody.empty());
    server.start();
  });
}

TEST_CASE("the program for libpq prints the rows of its statements") {
  const std::string program = PostgresServer::program();
  if (program.empty()) return;
  const PostgresServer server(program);
  const Ran ran = run_program(Example::path_of("adapters/postgres_query"),
                              {server.info(), "SELECT 1, 'a'", "SELECT nothing", "SELECT 2"});
  INFO(ran.output);
  CHECK(ran.output.starts_with("1\ta\nERROR:"));
  CHECK(ran.output.ends_with("\n2\n"));
  CHECK(ran.status == 0);
}
