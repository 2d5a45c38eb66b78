#include "flood.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <exception>
#include <memory>
#include <new>
#include <vector>

#include "loop.h"

namespace tls_load {
namespace {

using load_client::describe;
using load_client::RunError;

constexpr unsigned kSources = 64;  // see exchange.cpp

}  // namespace

Flood::Flood(const Options& options, load_client::Run& run, SSL_CTX* context)
    : options_(options), run_(run), context_(context) {
  if (options.flood == 0) return;
  void* const shared =
      mmap(nullptr, sizeof *handshakes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) throw RunError(describe("mmap", errno));
  handshakes_ = new (shared) std::atomic<std::uint64_t>(0);
}

Flood::~Flood() {
  if (process_ > 0) {
    kill(process_, SIGKILL);
    waitpid(process_, nullptr, 0);
  }
  if (handshakes_ != nullptr) munmap(handshakes_, sizeof *handshakes_);
}

void Flood::turn() {
  if (handshakes_ == nullptr) return;
  if (process_ == 0 && run_.begun()) start();
  if (!run_.measuring()) return;
  if (!counting_) before_ = *handshakes_;
  counting_ = true;
  run_.result().flood_handshakes = *handshakes_ - before_;
  if (process_ > 0 && waitpid(process_, nullptr, WNOHANG) == process_) {
    process_ = -1;
    throw RunError("the process that makes handshakes has ended");
  }
}

void Flood::start() {
  process_ = fork();
  if (process_ < 0) throw RunError(describe("fork", errno));
  if (process_ > 0) return;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const sched_param none{};
  sched_setscheduler(0, SCHED_IDLE, &none);
  try {
    go_on_for_ever();
  } catch (const std::exception&) {
    // The other process says that this one has ended.
  }
  _exit(1);
}

void Flood::go_on_for_ever() {
  Loop loop;
  std::vector<std::unique_ptr<Link>> slots(options_.flood);
  unsigned opened = 0;
  const auto open = [&](std::uint32_t index) {
    std::unique_ptr<Link>& link = slots[index];
    link.reset();
    link = std::make_unique<Link>(options_.load, context_, ++opened % kSources);
    loop.watch(link->fd(), {Kind::connection, index});
    (void)link->shake();
  };
  for (std::uint32_t index = 0; index < slots.size(); ++index) open(index);
  for (;;) {
    for (const epoll_event& event : loop.wait(std::chrono::seconds(1))) {
      const Tag ready = Loop::tag_of(event);
      if (!slots[ready.index]->shake()) continue;
      ++*handshakes_;
      open(ready.index);
    }
  }
}

}  // namespace tls_load
