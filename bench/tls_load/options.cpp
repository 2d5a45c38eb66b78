#include "options.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "../common/take_option.h"

namespace tls_load {
namespace {

constexpr char kUsage[] =
    "usage: tls_load --port N [options]\n"
    "  --plain              no TLS: the same load for a server without\n"
    "  --churn              connect, handshake, one echo, close, over C parallel slots\n"
    "  --resume             with --churn: all but the first of a slot resume a session\n"
    "  --flood F            beside the echoes full handshakes over F parallel slots\n"
    "  --cipher             no server: this process decrypts and encrypts each message\n"
    "and, as load_client --help says: --address --connections --size --depth --rate --duration\n"
    "--warmup --requests --idle --idle-echo --pid --json --progress.\n"
    "TLS 1.3 with TLS_AES_256_GCM_SHA384 and X25519, no certificate is verified.\n";

constexpr unsigned long kMostFlood = 10'000;

[[noreturn]] void refuse(const char* text) {
  std::fprintf(stderr, "tls_load: %s (--help tells more)\n", text);
  std::exit(2);
}

}  // namespace

Options parse_options(int argc, char** argv) {
  if (bench::take_flag(argc, argv, "--help")) {
    std::fputs(kUsage, stdout);
    std::exit(0);
  }
  Options options;
  options.plain = bench::take_flag(argc, argv, "--plain");
  options.resume = bench::take_flag(argc, argv, "--resume");
  options.cipher = bench::take_flag(argc, argv, "--cipher");
  if (const char* text = bench::take_option(argc, argv, "--flood")) {
    char* end = nullptr;
    const unsigned long slots = std::strtoul(text, &end, 10);
    if (*text == '\0' || *end != '\0' || slots > kMostFlood) refuse("--flood: no number to 10000");
    options.flood = static_cast<unsigned>(slots);
  }
  std::vector<char*> arguments(argv, argv + argc);
  std::string nowhere = "--port=1";
  if (options.cipher) arguments.push_back(nowhere.data());
  const int count = static_cast<int>(arguments.size());
  arguments.push_back(nullptr);
  options.load = load_client::parse_options(count, arguments.data());

  using load_client::Mode;
  const load_client::Options& load = options.load;
  if (load.mode == Mode::broadcast || load.slow != 0 || load.reset) {
    refuse("--broadcast, --slow and --reset are of load_client alone");
  }
  if (options.resume && load.mode != Mode::churn) refuse("--resume needs --churn");
  if (options.flood != 0 && load.mode != Mode::echo) refuse("--flood is for echo only");
  if (options.plain && (options.resume || options.flood != 0)) refuse("--plain has no handshakes");
  if (options.cipher) {
    if (load.mode != Mode::echo) refuse("--cipher is for messages only");
    options.load.server_pid = getpid();
  }
  return options;
}

}  // namespace tls_load
