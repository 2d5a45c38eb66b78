// Drives an echo server with TLS, checks every byte it sends back, and measures: load_client's
// figures, with OpenSSL on epoll, one thread.

#include <algorithm>
#include <chrono>
#include <csignal>
#include <exception>

#include "../load_client/report.h"
#include "../load_client/run.h"
#include "cipher.h"
#include "echo.h"
#include "exchange.h"
#include "flood.h"
#include "link.h"
#include "loop.h"
#include "options.h"

namespace tls_load {
namespace {

using namespace std::chrono_literals;

constexpr auto kLookPeriod = 100ms;

template <typename Load>
void drive(Load& load, Flood& flood, Loop& loop, Run& run) {
  Clock::time_point next_look = Clock::now() + kLookPeriod;
  load.start();
  while (!load.finished()) {
    const Clock::time_point until = std::min({next_look, run.phase_end(), load.due()});
    const auto limit = std::max<std::chrono::nanoseconds>(until - Clock::now(), 0ns);
    const auto events = loop.wait(limit);
    run.begin_turn();
    for (const epoll_event& event : events) load.handle(Loop::tag_of(event));
    load.end_turn();
    flood.turn();
    if (run.now() < next_look) continue;
    run.look();
    next_look = run.now() + kLookPeriod;
  }
  run.finish();
}

void drive(const Options& options, Run& run, load_client::Records& records) {
  if (options.cipher) return run_cipher(options, run);
  const Context context = options.plain ? nullptr : make_context(records);
  Loop loop;
  Flood flood(options, run, context.get());
  if (options.load.mode == load_client::Mode::echo) {
    Echo load(options, run, loop, context.get());
    drive(load, flood, loop, run);
  } else {
    Exchange load(options, run, loop, context.get());
    drive(load, flood, loop, run);
  }
}

int run(const Options& options) {
  load_client::Result failed;
  try {
    load_client::ensure_descriptors(options.load.connections + options.flood);
    Run run(options.load);
    load_client::Records records;
    if (!options.plain && !options.cipher) run.count_records(records);
    try {
      drive(options, run, records);
    } catch (const std::exception& error) {
      run.abandon(error.what());
    }
    return report(options.load, run.result());
  } catch (const std::exception& error) {
    failed.error = error.what();
  }
  return report(options.load, failed);
}

}  // namespace
}  // namespace tls_load

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);  // OpenSSL writes to sockets without MSG_NOSIGNAL
  return tls_load::run(tls_load::parse_options(argc, argv));
}
