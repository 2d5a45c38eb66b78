#include "options.h"

#include <getopt.h>

#include <charconv>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "stream_pattern.h"

namespace load_client {
namespace {

constexpr char kUsage[] =
    "usage: load_client --port N [options]\n"
    "  --address A          server's IP address (127.0.0.1)\n"
    "  --connections C      connections at the same time (64)\n"
    "  --size BYTES         bytes per message (64)\n"
    "  --lines              each message ends with a line feed, and has no other\n"
    "  --depth D            messages in flight per connection (1)\n"
    "  --rate R             requests per second, over all connections, evenly spaced; latencies\n"
    "                       count from when a request was due, not from when it could be sent\n"
    "  --slow S             S further connections that read slowly and are not measured\n"
    "  --duration SECONDS   measured time (5; with --requests a limit, 60)\n"
    "  --warmup SECONDS     time before that, not measured (0.5; with --requests 0)\n"
    "  --requests N         end after exactly N requests\n"
    "  --churn              connect, one echo, close, over C parallel slots\n"
    "  --reset              with --churn: close with RST, not FIN\n"
    "  --broadcast          one connection sends, all receive: a request is one delivery\n"
    "  --idle               open C connections and hold them until stdin closes or time is up\n"
    "  --idle-echo          with --idle: first one echo over each\n"
    "  --pid P              the server's process: report its CPU time and memory\n"
    "  --json               one JSON object on stdout\n"
    "  --progress           live line on stderr, if that is a terminal\n"
    "Every byte that comes back is checked; exit status 0 only if all were right.\n";

// Bounds that keep memory and time of a run within reason; nothing in the client depends on them.
constexpr unsigned long kMaxConnections = 1'000'000;
constexpr unsigned long kMaxSlow = 10'000;
constexpr unsigned long kMaxSize = 64UL << 20;
constexpr unsigned long kMaxDepth = 4096;
constexpr unsigned long kMaxBytesInFlight = 64UL << 20;   // of one connection
constexpr unsigned long kMaxExchangeBytes = 256UL << 20;  // of all slots of --churn or --idle
constexpr double kMaxSeconds = 86400;

[[noreturn, gnu::format(printf, 1, 2)]] void refuse(const char* format, ...) {
  std::va_list arguments;
  va_start(arguments, format);
  std::fputs("load_client: ", stderr);
  std::vfprintf(stderr, format, arguments);
  std::fputs(" (--help tells more)\n", stderr);
  va_end(arguments);
  std::exit(2);
}

template <typename Number>
Number parse(const char* name, Number minimum, Number maximum) {
  Number value{};
  const char* end = optarg + std::strlen(optarg);
  const auto [rest, error] = std::from_chars(optarg, end, value);
  if (error != std::errc{} || rest != end || !(value >= minimum && value <= maximum)) {
    refuse("--%s: '%s' is no number from %.0f to %.0f", name, optarg, static_cast<double>(minimum),
           static_cast<double>(maximum));
  }
  return value;
}

std::chrono::nanoseconds parse_seconds(const char* name) {
  return std::chrono::nanoseconds(std::llround(parse<double>(name, 0, kMaxSeconds) * 1e9));
}

void check_together(const Options& options, bool churn, bool idle, bool broadcast) {
  if (churn + idle + broadcast > 1) refuse("--churn, --idle and --broadcast exclude each other");
  if (options.requests != 0 && broadcast) refuse("--broadcast cannot count its --requests");
  if (options.mode != Mode::echo && options.rate > 0) refuse("--rate is for echo only");
  if (options.mode != Mode::echo && options.slow != 0) refuse("--slow is for echo only");
  if (options.reset && !churn) refuse("--reset needs --churn");
  if (options.idle_echo && !idle) refuse("--idle-echo needs --idle");
  if (options.requests != 0 && idle) refuse("--idle has no requests to count");
  if (options.requests != 0 && options.warmup.count() != 0) {
    refuse("--requests counts all requests and so has no --warmup");
  }
  if (options.mode != Mode::echo && options.depth != 1) refuse("--depth is for echo only");
  if (options.size * options.depth > kMaxBytesInFlight) {
    refuse("--size times --depth: more than %lu bytes", kMaxBytesInFlight);
  }
  if ((churn || idle) && options.size * options.connections > kMaxExchangeBytes) {
    refuse("--size times --connections: more than %lu bytes", kMaxExchangeBytes);
  }
}

}  // namespace

const char* name_of(Mode mode) {
  switch (mode) {
    case Mode::echo:
      return "echo";
    case Mode::churn:
      return "churn";
    case Mode::idle:
      return "idle";
    case Mode::broadcast:
      return "broadcast";
  }
  return "";
}

Options parse_options(int argc, char** argv) {
  enum Choice : int {
    address,
    port,
    connections,
    size,
    lines,
    depth,
    rate,
    slow,
    duration,
    warmup,
    requests,
    churn_mode,
    reset,
    broadcast_mode,
    idle_mode,
    idle_echo,
    pid,
    json,
    progress,
    help
  };
  static constexpr option kLongOptions[] = {
      {"address", required_argument, nullptr, address},
      {"port", required_argument, nullptr, port},
      {"connections", required_argument, nullptr, connections},
      {"size", required_argument, nullptr, size},
      {"lines", no_argument, nullptr, lines},
      {"depth", required_argument, nullptr, depth},
      {"rate", required_argument, nullptr, rate},
      {"slow", required_argument, nullptr, slow},
      {"duration", required_argument, nullptr, duration},
      {"warmup", required_argument, nullptr, warmup},
      {"requests", required_argument, nullptr, requests},
      {"churn", no_argument, nullptr, churn_mode},
      {"reset", no_argument, nullptr, reset},
      {"broadcast", no_argument, nullptr, broadcast_mode},
      {"idle", no_argument, nullptr, idle_mode},
      {"idle-echo", no_argument, nullptr, idle_echo},
      {"pid", required_argument, nullptr, pid},
      {"json", no_argument, nullptr, json},
      {"progress", no_argument, nullptr, progress},
      {"help", no_argument, nullptr, help},
      {nullptr, 0, nullptr, 0},
  };

  Options options;
  std::string server_address = "127.0.0.1";
  std::uint16_t server_port = 0;
  bool has_duration = false;
  bool has_warmup = false;
  bool has_lines = false;
  bool churn = false;
  bool idle = false;
  bool broadcast = false;
  for (int choice; (choice = getopt_long(argc, argv, "", kLongOptions, nullptr)) != -1;) {
    switch (choice) {
      case address:
        server_address = optarg;
        break;
      case port:
        server_port = parse<std::uint16_t>("port", 1, 65535);
        break;
      case connections:
        options.connections =
            static_cast<unsigned>(parse<unsigned long>("connections", 1, kMaxConnections));
        break;
      case size:
        options.size = parse<unsigned long>("size", 1, kMaxSize);
        break;
      case lines:
        has_lines = true;
        break;
      case depth:
        options.depth = static_cast<unsigned>(parse<unsigned long>("depth", 1, kMaxDepth));
        break;
      case rate:
        options.rate = parse<double>("rate", 0.1, 1e8);
        break;
      case slow:
        options.slow = static_cast<unsigned>(parse<unsigned long>("slow", 0, kMaxSlow));
        break;
      case duration:
        options.duration = parse_seconds("duration");
        has_duration = true;
        break;
      case warmup:
        options.warmup = parse_seconds("warmup");
        has_warmup = true;
        break;
      case requests:
        options.requests = parse<unsigned long>("requests", 1, 1UL << 53);
        break;
      case churn_mode:
        churn = true;
        break;
      case reset:
        options.reset = true;
        break;
      case broadcast_mode:
        broadcast = true;
        break;
      case idle_mode:
        idle = true;
        break;
      case idle_echo:
        options.idle_echo = true;
        break;
      case pid:
        options.server_pid = parse<pid_t>("pid", 1, 1 << 30);
        break;
      case json:
        options.json = true;
        break;
      case progress:
        options.progress = true;
        break;
      case help:
        std::fputs(kUsage, stdout);
        std::exit(0);
      default:  // getopt has said why
        std::exit(2);
    }
  }
  if (optind != argc) refuse("'%s' is no option", argv[optind]);
  if (server_port == 0) refuse("--port is missing");
  if (options.requests != 0 && !has_duration) options.duration = std::chrono::seconds(60);
  if (!has_warmup && (options.requests != 0 || idle)) options.warmup = {};

  options.mode = churn ? Mode::churn : idle ? Mode::idle : broadcast ? Mode::broadcast : Mode::echo;
  check_together(options, churn, idle, broadcast);
  const auto server = bench::make_socket_address(server_address, server_port);
  if (!server) refuse("--address: '%s' is no IP address", server_address.c_str());
  options.server = *server;
  if (has_lines) {
    if (options.size > StreamPattern::kPeriod)
      refuse("--lines: at most %zu bytes", StreamPattern::kPeriod);
    StreamPattern::be_lines(options.size);
  }
  return options;
}

}  // namespace load_client
