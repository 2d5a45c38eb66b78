#include <weir/core/blocking.h>
#include <weir/core/sleep.h>
#include <weir/coro/task_group.h>
#include <weir/coro/when_all.h>

#include <doctest/doctest.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "check.h"
#include "model.h"

using namespace weir;
using namespace weir::schedules;

namespace {

/// Of the model: time passes only where everybody waits for it.
class NoTimePasses {
 public:
  NoTimePasses() : begin_(std::chrono::steady_clock::now()) {}
  NoTimePasses(const NoTimePasses&) = delete;
  NoTimePasses& operator=(const NoTimePasses&) = delete;
  ~NoTimePasses() { require(std::chrono::steady_clock::now() == begin_, "nobody waits for time"); }

 private:
  std::chrono::steady_clock::time_point begin_;
};

}  // namespace

TEST_CASE("a job of a pool comes back with what it returns") {
  check("blocking", [] {
    const NoTimePasses watched;
    ModelLoop loop;
    BlockingPool pool({.threads = 1});
    loop->run_until_complete([&]() -> Task<> {
      const auto value = co_await pool.run([] { return std::make_unique<int>(7); });
      require(*value == 7, "what was returned over there");
    });
  });
}

TEST_CASE("two jobs of a pool are both done, by one thread or two") {
  for (const std::size_t threads : {1U, 2U}) {
    check("blocking, two by " + std::to_string(threads), [threads] {
      const NoTimePasses watched;
      ModelLoop loop;
      BlockingPool pool({.threads = threads});
      loop->run_until_complete([&]() -> Task<> {
        const auto [one, other] =
            co_await when_all(pool.run([] { return 1; }), pool.run([] { return 2; }));
        require(one == 1 && other == 2, "what was returned over there");
      });
    });
  }
}

TEST_CASE("a loop may end as soon as it has what its jobs return, before their pool") {
  check("blocking, the loop ends first", [] {
    const NoTimePasses watched;
    BlockingPool pool({.threads = 2});
    const auto loop = std::make_unique<ModelLoop>();
    (*loop)->run_until_complete([&]() -> Task<> {
      (void)co_await when_all(pool.run([] { return 1; }), pool.run([] { return 2; }));
    });
  });
}

TEST_CASE(
    "a job whose caller is dropped is done, and what it holds is freed before the pool's end") {
  check("blocking, dropped", [] {
    const NoTimePasses watched;
    ModelLoop loop;
    const std::shared_ptr<int> token = std::make_shared<int>(0);
    {
      BlockingPool pool({.threads = 1});
      loop->run_until_complete([&]() -> Task<> {
        TaskGroup group;
        group.spawn([&]() -> Task<> {
          auto keep = [token] { return token; };
          (void)co_await pool.run(std::move(keep));
        });
        co_await yield();
        group.cancel();
      });
    }
    require(token.use_count() == 1, "what it captured is gone");
  });
  check("blocking, dropped in the queue", [] {
    const NoTimePasses watched;
    ModelLoop loop;
    const std::shared_ptr<int> token = std::make_shared<int>(0);
    {
      BlockingPool pool({.threads = 1, .queue = 0});
      loop->run_until_complete([&]() -> Task<> {
        TaskGroup group;
        for (int i = 0; i < 2; ++i) {
          group.spawn([&]() -> Task<> {
            auto keep = [token] { return token; };
            (void)co_await pool.run(std::move(keep));
          });
        }
        co_await yield();
        group.cancel();
      });
    }
    require(token.use_count() == 1, "what it captured is gone");
  });
}

TEST_CASE("a pool that ends while its thread ends for want of work waits for it") {
  check("pool, end against idle end", [] {
    ModelLoop loop;
    std::optional<BlockingPool> pool(std::in_place, BlockingPoolOptions{.threads = 1});
    loop->run_until_complete([&]() -> Task<> {
      co_await pool->run([] {});
      co_await sleep(5s);
      co_await pool->run([] {});
    });
    const NoTimePasses watched;
    pool.reset();
  });
}
