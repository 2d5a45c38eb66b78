// Look-ups of names, many at once, for both families: c-ares in the loop of its manual (select(2)),
// on weir, and `threads`: what `connect` does, getaddrinfo(3) in threads, which asks the servers of
// /etc/resolv.conf. `--server` is what Cares takes; it answers for n0.test to n255.test.
#include <sys/select.h>

#include <exception>
#include <vector>

#include "../../examples/adapters/cares.h"
#include "load.h"

namespace {

std::string next_name() {
  static unsigned number = 0;
  return 'n' + std::to_string(number++ % 256) + ".test";
}

// ---- c-ares' own loop ----

struct Own {
  ares_channel channel;
  load::Meter& meter;
  std::size_t under_way = 0;
  std::size_t ended = 0;
};

void on_answer(void* data, int status, int /*timeouts*/, ares_addrinfo* info) {
  Own& own = *static_cast<Own*>(data);
  load::require(status == ARES_SUCCESS && info->nodes != nullptr, ares_strerror(status));
  ares_freeaddrinfo(info);
  --own.under_way;
  if (own.meter.done()) ++own.ended;
}

void ask(Own& own) {
  ares_addrinfo_hints hints{};
  hints.ai_family = AF_UNSPEC;
  ++own.under_way;
  ares_getaddrinfo(own.channel, next_name().c_str(), nullptr, &hints, &on_answer, &own);
}

void own_loop(const load::Options& options, load::Meter& meter) {
  ares_library_init(ARES_LIB_INIT_ALL);
  Own own{nullptr, meter};
  load::require(ares_init(&own.channel) == ARES_SUCCESS, "no channel");
  ares_set_servers_ports_csv(own.channel, options.server.c_str());
  for (std::size_t i = 0; i < options.in_flight; ++i) ask(own);
  while (own.under_way + own.ended != 0) {
    for (; own.ended != 0; --own.ended) ask(own);
    fd_set readable;
    fd_set writable;
    FD_ZERO(&readable);
    FD_ZERO(&writable);
    const int count = ares_fds(own.channel, &readable, &writable);
    timeval until{};
    ::select(count, &readable, &writable, nullptr, ares_timeout(own.channel, nullptr, &until));
    ares_process(own.channel, &readable, &writable);
  }
  ares_destroy(own.channel);
}

// ---- weir ----

weir::Task<> client(adapters::Cares& cares, load::Meter& meter) {
  for (bool more = true; more; more = meter.done()) {
    const std::vector<weir::SocketAddress> addresses = co_await cares.resolve(next_name(), 80);
    load::require(!addresses.empty(), "no address");
  }
}

weir::Task<> client_of_threads(load::Meter& meter) {
  for (bool more = true; more; more = meter.done()) {
    const std::vector<weir::SocketAddress> addresses = co_await weir::resolve(next_name() + ":80");
    load::require(!addresses.empty(), "no address");
  }
}

weir::Task<> weir_loop(const load::Options& options, load::Meter& meter) {
  adapters::Cares cares({.servers = options.server});
  std::vector<weir::Task<>> clients;
  for (std::size_t i = 0; i < options.in_flight; ++i) clients.push_back(client(cares, meter));
  co_await weir::when_all(std::move(clients));
}

weir::Task<> weir_threads(const load::Options& options, load::Meter& meter) {
  std::vector<weir::Task<>> clients;
  for (std::size_t i = 0; i < options.in_flight; ++i) clients.push_back(client_of_threads(meter));
  co_await weir::when_all(std::move(clients));
}

}  // namespace

int main(int argc, char** argv) try {
  const load::Options options(argc, argv);
  load::Meter meter(options);
  if (options.loop == "own") {
    own_loop(options, meter);
  } else if (options.loop == "weir") {
    weir::run(weir_loop(options, meter));
  } else {
    weir::run(weir_threads(options, meter));
  }
  meter.print();
} catch (const std::exception& error) {
  std::fprintf(stderr, "cares_loops: %s\n", error.what());
  return 1;
}
