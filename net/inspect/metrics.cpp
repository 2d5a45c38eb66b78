#include <weir/net/inspect/counters.h>
#include <weir/net/inspect/render.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string_view>

namespace weir::detail {
namespace {

struct OfServer {
  const char* name;
  bool is_gauge;
  std::uint64_t (*value)(const ServerMetrics&);
  const char* help;
};

constexpr OfServer kOfServers[] = {
    {"weir_server_connections", true,
     [](const ServerMetrics& of) { return std::uint64_t{of.connections}; }, "Connections"},
    {"weir_server_accepted_total", false, [](const ServerMetrics& of) { return of.accepts; },
     "Connections accepted"},
    {"weir_server_refused_total", false, [](const ServerMetrics& of) { return of.refused; },
     "Connections refused by a limit"},
    {"weir_server_shed_total", false, [](const ServerMetrics& of) { return of.shed; },
     "Connections closed for want of descriptors"},
    {"weir_server_failures_total", false, [](const ServerMetrics& of) { return of.failures; },
     "Exceptions that left a handler"},
    {"weir_server_received_bytes_total", false, [](const ServerMetrics& of) { return of.bytes_in; },
     "Bytes received"},
    {"weir_server_sent_bytes_total", false, [](const ServerMetrics& of) { return of.bytes_out; },
     "Bytes sent"},
    {"weir_server_handshakes_total", false, [](const ServerMetrics& of) { return of.handshakes; },
     "TLS handshakes that succeeded"},
    {"weir_server_failed_handshakes_total", false,
     [](const ServerMetrics& of) { return of.failed_handshakes; }, "TLS handshakes that failed"},
};

void add_metric(std::string& text, const std::string& name, const char* type, const char* help) {
  text += "# HELP " + name + ' ' + help + "\n# TYPE " + name + ' ' + type + '\n';
}

/// A label's value: `\`, `"` and newlines as the format wants them.
std::string label(std::string_view value) {
  std::string text;
  for (const char c : value) {
    if (c == '\n') {
      text += "\\n";
      continue;
    }
    if (c == '"' || c == '\\') text += '\\';
    text += c;
  }
  return text;
}

std::string number(double value) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.12g", value);
  return text.data();
}

/// Of a histogram, in seconds: of a unit of its buckets, and of its sum.
struct Scale {
  double of_bucket;
  double of_sum;
};
constexpr Scale kMilliseconds{1e-3, 1e-3};
constexpr Scale kNanoseconds{1e-9 * (1 << kFineBits), 1e-9};

/// Buckets add up, each with what is in those before it.
void add_histogram(std::string& text, const std::string& name, const std::string& labels,
                   const Histogram& histogram, Scale scale) {
  std::uint64_t count = 0;
  for (std::size_t i = 0; i <= Histogram::kBuckets; ++i) {
    count += histogram.count(i);
    const double most = scale.of_bucket * static_cast<double>(std::uint64_t{1} << i);
    text.append(name).append("_bucket{").append(labels).append(",le=\"");
    text.append(i == Histogram::kBuckets ? "+Inf" : number(most)).append("\"} ");
    text.append(std::to_string(count)).append("\n");
  }
  text += name + "_sum{" + labels + "} " +
          number(scale.of_sum * static_cast<double>(histogram.sum())) + '\n';
  text += name + "_count{" + labels + "} " + std::to_string(count) + '\n';
}

void add_loops(std::string& text, const Snapshot& snapshot) {
  const auto labels = [](const LoopReport& loop) {
    return "loop=\"" + std::to_string(loop.number) + "\",name=\"" + label(name_of(loop)) + '"';
  };
  add_metric(text, "weir_loop_up", "gauge", "Whether the loop answers");
  for (const LoopReport& loop : snapshot.loops) {
    const bool is_up = loop.state == LoopReport::State::answered;
    text += "weir_loop_up{" + labels(loop) + (is_up ? "} 1\n" : "} 0\n");
  }
  for (const Counter& counter : kCounters) {
    if (std::string_view(counter.name).ends_with("_ms")) continue;  // in a histogram, in seconds
    const std::string name =
        std::string("weir_loop_") + counter.name + (counter.is_gauge ? "" : "_total");
    add_metric(text, name, counter.is_gauge ? "gauge" : "counter", counter.help);
    for (const LoopReport& loop : snapshot.loops) {
      text += name + '{' + labels(loop) + "} " + std::to_string(loop.metrics.*counter.value) + '\n';
    }
  }
  add_metric(text, "weir_loop_turn_seconds", "histogram",
             "How long turns took while there were timers, by ticks of the kernel");
  for (const LoopReport& loop : snapshot.loops) {
    add_histogram(text, "weir_loop_turn_seconds", labels(loop), loop.turn_ms_taken, kMilliseconds);
  }
  add_metric(text, "weir_loop_lag_seconds", "histogram", "How late timers fired");
  for (const LoopReport& loop : snapshot.loops) {
    add_histogram(text, "weir_loop_lag_seconds", labels(loop), loop.lag, kNanoseconds);
  }
}

void add_servers(std::string& text, const Snapshot& snapshot) {
  const auto labels = [&](const ServerReport& server) {
    return "server=\"" + std::to_string(&server - snapshot.servers.data() + 1) + "\",name=\"" +
           label(server.name) + '"';
  };
  for (const OfServer& metric : kOfServers) {
    add_metric(text, metric.name, metric.is_gauge ? "gauge" : "counter", metric.help);
    for (const ServerReport& server : snapshot.servers) {
      text += std::string(metric.name) + '{' + labels(server) + "} " +
              std::to_string(metric.value(server.metrics)) + '\n';
    }
  }
  add_metric(text, "weir_server_accept_to_handler_seconds", "histogram",
             "From a connection's accept to the call of its handler");
  for (const ServerReport& server : snapshot.servers) {
    add_histogram(text, "weir_server_accept_to_handler_seconds", labels(server), server.waits,
                  kNanoseconds);
  }
}

}  // namespace

std::string metrics_as_text(const Snapshot& snapshot) {
  std::string text;
  add_loops(text, snapshot);
  add_servers(text, snapshot);
  return text;
}

}  // namespace weir::detail
