#include "report.h"

#include <cinttypes>
#include <cstdio>

namespace load_client {
namespace {

double microseconds(std::chrono::nanoseconds duration) {
  return std::chrono::duration<double, std::micro>(duration).count();
}

double per_second(std::uint64_t count, std::chrono::nanoseconds duration) {
  return duration.count() > 0 ? static_cast<double>(count) * 1e6 / microseconds(duration) : 0;
}

double per_request(std::uint64_t count, const Result& result) {
  return static_cast<double>(count) / static_cast<double>(result.requests);
}

// Microseconds of CPU per request. The kernel's split into user and system time is coarse, so it is
// applied to the exact sum.
struct CpuPerRequest {
  double total = 0;
  double user = 0;
  double system = 0;
};

std::optional<CpuPerRequest> cpu_per_request(const Result& result) {
  if (!result.server_cpu || result.requests == 0) return std::nullopt;
  const CpuTime& cpu = *result.server_cpu;
  CpuPerRequest each;
  each.total = microseconds(cpu.total) / static_cast<double>(result.requests);
  const double split = microseconds(cpu.user + cpu.system);
  each.user = split > 0 ? each.total * microseconds(cpu.user) / split : 0;
  each.system = each.total - each.user;
  return each;
}

// JSON has no other place for the absence of a figure.
std::string number_or_null(std::optional<double> value) {
  if (!value) return "null";
  char text[32];
  std::snprintf(text, sizeof text, "%.4f", *value);
  return text;
}

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    result += static_cast<unsigned char>(c) < ' ' ? ' ' : c;
  }
  return result + '"';
}

void print_table(const Options& options, const Result& result) {
  std::printf("mode            %s\n", name_of(options.mode));
  std::printf("connections     %u x %zu B, %u in flight\n", options.connections, options.size,
              options.depth);
  std::printf("seconds         %.2f\n", std::chrono::duration<double>(result.measured).count());
  if (options.mode != Mode::idle) {
    std::printf("requests        %" PRIu64 "\n", result.requests);
    std::printf("requests/s      %.0f\n", per_second(result.requests, result.measured));
  }
  if (result.latencies.count() != 0) {
    std::printf("latency us      p50 %.1f  p99 %.1f  p99.9 %.1f  max %.1f\n",
                microseconds(result.latencies.at(0.5)), microseconds(result.latencies.at(0.99)),
                microseconds(result.latencies.at(0.999)), microseconds(result.latencies.max()));
  }
  if (result.connects != 0) {
    std::printf("connects        %" PRIu64 ", %.0f/s\n", result.connects,
                per_second(result.connects, result.connecting));
  }
  if (const auto cpu = cpu_per_request(result)) {
    std::printf("server CPU us   %.3f per request (user %.3f, system %.3f)\n", cpu->total,
                cpu->user, cpu->system);
  }
  if (result.server_memory) {
    std::printf("server KiB      resident %ld, proportional %ld, private %ld\n",
                result.server_memory->resident_kib, result.server_memory->proportional_kib,
                result.server_memory->private_kib);
  }
  if (result.records && result.requests != 0) {
    std::printf("records         %.3f sent, %.3f received per request\n",
                per_request(result.records->sent, result),
                per_request(result.records->received, result));
  }
  if (result.flood_handshakes != 0) {
    std::printf("flood           %" PRIu64 " handshakes, %.0f/s\n", result.flood_handshakes,
                per_second(result.flood_handshakes, result.measured));
  }
  std::printf("bytes checked   %" PRIu64 "\n", result.bytes_checked);
  std::printf("errors          %d\n", result.error.empty() ? 0 : 1);
}

void print_json(const Options& options, const Result& result) {
  const auto cpu = cpu_per_request(result);
  const auto share = [&](const CpuTime& time) {
    const double measured = microseconds(result.measured);
    return measured > 0 ? microseconds(time.total) / measured : 0;
  };
  const auto latency = [&](std::chrono::nanoseconds value) -> std::optional<double> {
    if (result.latencies.count() == 0) return std::nullopt;
    return microseconds(value);
  };
  const auto memory = [&](long Memory::* field) {
    return result.server_memory ? std::to_string((*result.server_memory).*field) : "null";
  };
  const auto print = [](const char* name, const std::string& value, const char* end = ", ") {
    std::printf("\"%s\": %s%s", name, value.c_str(), end);
  };

  std::putchar('{');
  print("mode", quoted(name_of(options.mode)));
  print("connections", std::to_string(options.connections));
  print("size", std::to_string(options.size));
  print("depth", std::to_string(options.depth));
  print("seconds", number_or_null(std::chrono::duration<double>(result.measured).count()));
  print("requests", std::to_string(result.requests));
  print("requests_per_second", number_or_null(per_second(result.requests, result.measured)));
  print("p50_us", number_or_null(latency(result.latencies.at(0.5))));
  print("p99_us", number_or_null(latency(result.latencies.at(0.99))));
  print("p999_us", number_or_null(latency(result.latencies.at(0.999))));
  print("max_us", number_or_null(latency(result.latencies.max())));
  print("cpu_us_per_request", number_or_null(cpu ? std::optional(cpu->total) : std::nullopt));
  print("user_us_per_request", number_or_null(cpu ? std::optional(cpu->user) : std::nullopt));
  print("system_us_per_request", number_or_null(cpu ? std::optional(cpu->system) : std::nullopt));
  print(
      "server_cpu_share",
      number_or_null(result.server_cpu ? std::optional(share(*result.server_cpu)) : std::nullopt));
  print("client_cpu_share", number_or_null(share(result.client_cpu)));
  print("bytes_checked", std::to_string(result.bytes_checked));
  print("errors", result.error.empty() ? "0" : "1");
  print("error", result.error.empty() ? "null" : quoted(result.error));
  print("connects", std::to_string(result.connects));
  print("connects_per_second", number_or_null(per_second(result.connects, result.connecting)));
  if (result.records && result.requests != 0) {
    print("records_sent", number_or_null(per_request(result.records->sent, result)));
    print("records_received", number_or_null(per_request(result.records->received, result)));
  }
  if (result.flood_handshakes != 0) {
    print("flood_handshakes_per_second",
          number_or_null(per_second(result.flood_handshakes, result.measured)));
  }
  print("rss_kib", memory(&Memory::resident_kib));
  print("pss_kib", memory(&Memory::proportional_kib));
  print("private_kib", memory(&Memory::private_kib), "}\n");
}

}  // namespace

int report(const Options& options, const Result& result) {
  if (!result.error.empty()) std::fprintf(stderr, "load_client: %s\n", result.error.c_str());
  if (options.json) {
    print_json(options, result);
  } else {
    print_table(options, result);
  }
  return result.error.empty() ? 0 : 1;
}

}  // namespace load_client
