// Drives a TCP echo server, checks every byte it sends back, and measures.

#include <exception>

#include "broadcast_load.h"
#include "echo_load.h"
#include "exchange_load.h"
#include "options.h"
#include "report.h"
#include "session.h"

namespace load_client {
namespace {

template <typename Load>
void run_load(Session& session) {
  Load load(session);
  session.run(load);
}

int run(const Options& options) {
  Result failed;
  try {
    ensure_descriptors(options.connections + options.slow);
    Session session(options);
    try {
      if (options.mode == Mode::echo) {
        run_load<EchoLoad>(session);
      } else if (options.mode == Mode::broadcast) {
        run_load<BroadcastLoad>(session);
      } else {
        run_load<ExchangeLoad>(session);
      }
    } catch (const std::exception& error) {
      session.abandon(error.what());
    }
    return report(options, session.result());
  } catch (const std::exception& error) {
    failed.error = error.what();
  }
  return report(options, failed);
}

}  // namespace
}  // namespace load_client

int main(int argc, char** argv) { return load_client::run(load_client::parse_options(argc, argv)); }
