#include <weir/io/engines.h>
#include <weir/weir.h>

#include <doctest/doctest.h>
#include <unistd.h>

#include <stdexcept>
#include <string>
#include <system_error>

#include "../support/process.h"
#include "child.h"

using namespace weir;
using namespace weir::detail;
using namespace weir::test;

namespace {

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
    ++found;
  }
  return found;
}

bool machine_has_uring() {
  const Environment none("WEIR_ENGINE", nullptr);
  return choose_engine().name == "io_uring";
}

void check_echo_on(const char* engine, const Ended& ended) {
  CHECK(ended.status == 0);
  CHECK(count(ended.output, std::string("engine: ") + engine + "\n") == 1);
  CHECK(count(ended.output, "echo: 7 of 7 right\n") == 1);
  CHECK(count(ended.output, "end\n") == 1);
}

/// Echo works where io_uring is refused, and one line says why it is epoll.
void check_falls_back(const char* refusal, const std::string& because) {
  const Environment none("WEIR_ENGINE", nullptr);
  const Ended ended = run_child("refused", {refusal});
  INFO(ended.output);
  check_echo_on("epoll", ended);
  CHECK(count(ended.output, "[info] using epoll, since ") == 1);
  CHECK(count(ended.output, because) == 1);
  CHECK(count(ended.output, "Cure: ") == 1);
}

/// Asked for nevertheless, it is an error that says what to do.
void check_wish_fails(const char* refusal, const std::string& because) {
  const Environment wish("WEIR_ENGINE", "uring");
  const Ended ended = run_child("refused", {refusal});
  INFO(ended.output);
  CHECK(ended.status == 1);
  CHECK(count(ended.output, "exception: weir: WEIR_ENGINE asks for io_uring, but ") == 1);
  CHECK(count(ended.output, because) == 1);
  CHECK(count(ended.output, "Cure: ") == 1);
}

}  // namespace

TEST_CASE("where a seccomp filter answers io_uring_setup with EPERM, servers run on epoll") {
  check_falls_back("setup-eperm", "seccomp filter");
  check_wish_fails("setup-eperm", "seccomp filter");
}

TEST_CASE("where a seccomp filter answers io_uring_setup with ENOSYS, servers run on epoll") {
  check_falls_back("setup-enosys", "seccomp filter");
  check_wish_fails("setup-enosys", "seccomp filter");
}

TEST_CASE("where a seccomp filter refuses another of the three calls, servers run on epoll") {
  check_falls_back("enter-eperm", "seccomp filter");
  check_falls_back("register-eperm", "seccomp filter");
}

TEST_CASE("where too little memory may be locked, servers run on epoll") {
  if (::geteuid() != 0) {
    MESSAGE("skipped: only root can become another user, and root may lock what it likes");
    return;
  }
  if (!machine_has_uring()) {
    MESSAGE("skipped: no io_uring here");
    return;
  }
  check_falls_back("memlock", "RLIMIT_MEMLOCK is 0 KiB");
  check_wish_fails("memlock", "RLIMIT_MEMLOCK is 0 KiB");
}

TEST_CASE("without epoll_pwait2 the epoll engine does with epoll_wait") {
  const Environment wish("WEIR_ENGINE", "epoll");
  const Ended ended = run_child("refused", {"pwait2-enosys"});
  INFO(ended.output);
  check_echo_on("epoll", ended);
}

TEST_CASE("io_uring_enter refused after the loop was made is a clear error, and no hang") {
  if (!machine_has_uring()) {
    MESSAGE("skipped: no io_uring here");
    return;
  }
  const Environment wish("WEIR_ENGINE", "uring");
  const Ended ended = run_child("refused", {"late-enter-eperm"});
  INFO(ended.output);
  CHECK(ended.status == 0);
  CHECK(count(ended.output, "engine: io_uring\n") == 1);
  CHECK(count(ended.output, "error: weir: io_uring_enter was refused") == 1);
  CHECK(count(ended.output, "WEIR_ENGINE=epoll") >= 1);
  CHECK(count(ended.output, "end\n") == 1);
}

TEST_CASE("where nothing is refused, no line is logged") {
  if (!machine_has_uring()) {
    MESSAGE("skipped: no io_uring here");
    return;
  }
  const Environment none("WEIR_ENGINE", nullptr);
  const Ended ended = run_child("refused", {"none"});
  INFO(ended.output);
  check_echo_on("io_uring", ended);
  CHECK(count(ended.output, "[info]") == 0);
}

TEST_CASE("WEIR_ENGINE goes before the options") {
  {
    const Environment wish("WEIR_ENGINE", "epoll");
    const EventLoop loop(LoopOptions{.engine = Engine::uring});
    CHECK(loop.engine_name() == "epoll");
    CHECK(choose_engine().name == "epoll");
    CHECK(choose_engine().why == "WEIR_ENGINE asks for it");
  }
  {
    const Environment wish("WEIR_ENGINE", "kqueue");
    CHECK_THROWS_WITH_AS(EventLoop(), doctest::Contains("uring, epoll or automatic"),
                         std::invalid_argument);
  }
  {
    const Environment wish("WEIR_ENGINE", "");
    const EventLoop loop(LoopOptions{.engine = Engine::epoll});
    CHECK(loop.engine_name() == "epoll");
  }
}
