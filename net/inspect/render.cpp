#include <weir/core/task_words.h>
#include <weir/net/inspect/render.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace weir::detail {
namespace {

/// A value of a table, with what JSON needs to know.
struct Cell {
  Cell(std::string_view text) : value(text), is_text(true) {}        // NOLINT: as it is written
  Cell(const char* text) : value(text), is_text(true) {}             // NOLINT: likewise
  Cell(const std::string& text) : value(text), is_text(true) {}      // NOLINT: likewise
  Cell(bool yes) : value(yes ? "true" : "false"), is_text(false) {}  // NOLINT: likewise
  Cell(std::uint64_t number) : value(std::to_string(number)), is_text(false) {}  // NOLINT: likewise

  std::string value;
  bool is_text;
};

struct Table {
  std::vector<const char*> columns;
  std::vector<std::vector<Cell>> rows;
};

std::string json_string(std::string_view text) {
  std::string written = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      written += '\\';
      written += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      std::array<char, 8> code{};
      std::snprintf(code.data(), code.size(), "\\u%04x", static_cast<unsigned>(c));
      written += code.data();
    } else {
      written += c;
    }
  }
  return written + '"';
}

std::string escaped(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '<') {
      escaped += "&lt;";
    } else if (c == '>') {
      escaped += "&gt;";
    } else if (c == '&') {
      escaped += "&amp;";
    } else {
      escaped += c;
    }
  }
  return escaped;
}

std::string as_text(const Table& table) {
  std::vector<std::size_t> widths;
  for (std::size_t i = 0; i < table.columns.size(); ++i) {
    std::size_t width = std::string_view(table.columns[i]).size();
    for (const auto& row : table.rows) width = std::max(width, row[i].value.size());
    widths.push_back(width);
  }
  std::string text;
  const auto add = [&](std::size_t column, std::string_view value, bool to_the_right) {
    const std::string gap(widths[column] - value.size(), ' ');
    if (column > 0) text += "  ";
    if (to_the_right) text += gap;
    text += value;
    if (!to_the_right && column + 1 < widths.size()) text += gap;
  };
  for (std::size_t i = 0; i < widths.size(); ++i) {
    add(i, table.columns[i], !table.rows.empty() && !table.rows.front()[i].is_text);
  }
  text += '\n';
  for (const auto& row : table.rows) {
    for (std::size_t i = 0; i < widths.size(); ++i) add(i, row[i].value, !row[i].is_text);
    text += '\n';
  }
  return text;
}

std::string as_json(const Table& table) {
  std::string text = "[";
  for (const auto& row : table.rows) {
    text += text.size() > 1 ? ",\n{" : "\n{";
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (i > 0) text += ',';
      text += json_string(table.columns[i]) + ':';
      text += row[i].is_text ? json_string(row[i].value) : row[i].value;
    }
    text += '}';
  }
  return text + "\n]\n";
}

std::string as_html(const Table& table) {
  std::string text = "<table><tr>";
  for (const char* column : table.columns) text += "<th>" + escaped(column) + "</th>";
  text += "</tr>\n";
  for (const auto& row : table.rows) {
    text += "<tr>";
    for (const Cell& cell : row) {
      text += (cell.is_text ? "<td>" : "<td class=n>") + escaped(cell.value) + "</td>";
    }
    text += "</tr>\n";
  }
  return text + "</table>\n";
}

const char* name_of(LoopReport::State state) noexcept {
  switch (state) {
    case LoopReport::State::answered:
      return "runs";
    case LoopReport::State::stuck:
      return "STUCK";
    case LoopReport::State::stands:
      break;
  }
  return "does not run";
}

std::string name_of(const LoopReport& loop) {
  return loop.name.empty() ? "loop " + std::to_string(loop.number) : loop.name;
}

/// A counter of a loop, as it is called everywhere.
struct Counter {
  const char* name;
  std::uint64_t Metrics::* value;
  bool is_gauge;
  const char* help;
};

constexpr Counter kCounters[] = {
    {"turns", &Metrics::turns, false, "Turns of the loop"},
    {"resumed", &Metrics::resumed, false, "Coroutines resumed by the loop"},
    {"timers_fired", &Metrics::timers_fired, false, "Timers that fired"},
    {"posted", &Metrics::posted, false, "Posted functions that were run"},
    {"waits", &Metrics::waits, false, "System calls that submit and wait"},
    {"submitted", &Metrics::submitted, false, "Operations handed to the kernel"},
    {"completed", &Metrics::completed, false, "Results taken in"},
    {"cancelled", &Metrics::cancelled, false, "Cancels handed to the kernel"},
    {"wakes", &Metrics::wakes, false, "Times that another thread woke the loop"},
    {"starved", &Metrics::starved, false, "Receives that found no free buffer"},
    {"overflows", &Metrics::overflows, false, "Overflows of the completion queue"},
    {"buffers", &Metrics::buffers, true, "Receive buffers that exist"},
    {"buffers_leased", &Metrics::buffers_leased, true, "Receive buffers that somebody holds"},
};

Table table_of_loops(const Snapshot& snapshot) {
  Table table{{"number", "name", "engine", "state", "thread", "turn_ms", "tasks", "connections"},
              {}};
  for (const Counter& counter : kCounters) table.columns.push_back(counter.name);
  for (const LoopReport& loop : snapshot.loops) {
    const auto roots = std::count_if(loop.tasks.begin(), loop.tasks.end(),
                                     [](const TaskLine& line) { return line.is_root; });
    std::vector<Cell> row = {
        loop.number,
        name_of(loop),
        loop.engine,
        name_of(loop.state),
        static_cast<std::uint64_t>(loop.thread),
        loop.state == LoopReport::State::stuck ? std::uint64_t{loop.turn_ms} : 0,
        static_cast<std::uint64_t>(roots),
        std::uint64_t{loop.connections.size()}};
    for (const Counter& counter : kCounters) row.emplace_back(loop.metrics.*counter.value);
    table.rows.push_back(std::move(row));
  }
  return table;
}

Table table_of_connections(const Snapshot& snapshot) {
  Table table{{"name", "loop", "state", "unread", "input_high", "paused", "pending", "high", "low",
               "sent", "tls"},
              {}};
  for (const LoopReport& loop : snapshot.loops) {
    for (const ConnectionLine& line : loop.connections) {
      table.rows.push_back({line.name, name_of(loop), line.state, std::uint64_t{line.unread},
                            std::uint64_t{line.input_high}, line.paused,
                            std::uint64_t{line.pending}, std::uint64_t{line.high},
                            std::uint64_t{line.low}, line.sent, line.is_secure});
    }
  }
  return table;
}

/// A line of the tree in words.
struct TaskWords {
  std::string function;
  std::string file;
  std::uint32_t line;
  std::string waits_for;  // nothing: for what follows
};

/// Connections by who reads from them.
class Readers {
 public:
  explicit Readers(const LoopReport& loop) {
    for (const ConnectionLine& connection : loop.connections) {
      if (connection.reader != nullptr) of_.emplace(connection.reader, &connection.name);
    }
  }
  /// Nothing if the scope reads from none.
  [[nodiscard]] const std::string* find(const Scope* scope) const {
    const auto found = of_.find(scope);
    return found == of_.end() ? nullptr : found->second;
  }

 private:
  std::unordered_map<const Scope*, const std::string*> of_;
};

TaskWords words_of(const Readers& readers, const TaskLine& line) {
  TaskWords words{function_name(line.where.function_name()), line.where.file_name(),
                  line.where.line(), line.words};
  if (line.where.line() == 0) words.function = "an operand";
  if (const std::string* name = readers.find(line.scope)) words.function += " [" + *name + ']';
  return words;
}

std::string seconds(std::uint32_t ms) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.3f s", ms / 1000.0);
  return text.data();
}

void add_tree(std::string& text, const LoopReport& loop) {
  text += "loop " + std::to_string(loop.number) + " \"" + name_of(loop) + "\" (" + loop.engine +
          "): " + name_of(loop.state);
  if (loop.state == LoopReport::State::stuck) {
    text += " in one turn for " + seconds(loop.turn_ms) + ", thread " + std::to_string(loop.thread);
  }
  text += '\n';
  const Readers readers(loop);
  for (const TaskLine& line : loop.tasks) {
    const TaskWords words = words_of(readers, line);
    text.append(2 * line.depth + 2, ' ');
    text += words.function;
    if (words.line > 0) text += " at " + words.file + ':' + std::to_string(words.line);
    text += ", " + seconds(line.waiting_ms);
    if (!words.waits_for.empty()) text += ": " + words.waits_for;
    text += '\n';
  }
  if (loop.tasks_cut) text += "  … and more\n";
}

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

}  // namespace

std::string tasks_as_text(const Snapshot& snapshot) {
  std::string text;
  for (const LoopReport& loop : snapshot.loops) add_tree(text, loop);
  return text;
}

std::string tasks_as_json(const Snapshot& snapshot) {
  std::string text = "[";
  for (const LoopReport& loop : snapshot.loops) {
    text += text.size() > 1 ? ",\n" : "\n";
    text += "{\"loop\":" + std::to_string(loop.number) + ",\"name\":" + json_string(name_of(loop)) +
            ",\"state\":" + json_string(name_of(loop.state)) + ",\"tasks\":[";
    std::size_t open = 0;  // lines that have not been closed
    const Readers readers(loop);
    for (const TaskLine& line : loop.tasks) {
      const TaskWords words = words_of(readers, line);
      const bool is_first = line.depth == open;
      for (; open > line.depth; --open) text += "]}";
      text += is_first ? "\n" : ",\n";
      text += "{\"function\":" + json_string(words.function) +
              ",\"file\":" + json_string(words.file) + ",\"line\":" + std::to_string(words.line) +
              ",\"waits_for\":" + json_string(words.waits_for) +
              ",\"waiting_ms\":" + std::to_string(line.waiting_ms) + ",\"children\":[";
      ++open;
    }
    for (; open > 0; --open) text += "]}";
    text += "]}";
  }
  return text + "\n]\n";
}

std::string connections_as_text(const Snapshot& snapshot) {
  return as_text(table_of_connections(snapshot));
}
std::string connections_as_json(const Snapshot& snapshot) {
  return as_json(table_of_connections(snapshot));
}
std::string loops_as_text(const Snapshot& snapshot) { return as_text(table_of_loops(snapshot)); }
std::string loops_as_json(const Snapshot& snapshot) { return as_json(table_of_loops(snapshot)); }

std::string metrics_as_text(const Snapshot& snapshot) {
  std::string text;
  add_metric(text, "weir_loop_up", "gauge", "Whether the loop answers");
  const auto labels = [](const LoopReport& loop) {
    return "{loop=\"" + std::to_string(loop.number) + "\",name=\"" + label(name_of(loop)) + "\"} ";
  };
  for (const LoopReport& loop : snapshot.loops) {
    text +=
        "weir_loop_up" + labels(loop) + (loop.state == LoopReport::State::answered ? "1\n" : "0\n");
  }
  for (const Counter& counter : kCounters) {
    const std::string name =
        std::string("weir_loop_") + counter.name + (counter.is_gauge ? "" : "_total");
    add_metric(text, name, counter.is_gauge ? "gauge" : "counter", counter.help);
    for (const LoopReport& loop : snapshot.loops) {
      text += name + labels(loop) + std::to_string(loop.metrics.*counter.value) + '\n';
    }
  }
  struct OfServer {
    const char* name;
    bool is_gauge;
    std::uint64_t (*value)(const ServerMetrics&);
    const char* help;
  };
  static constexpr OfServer kOfServers[] = {
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
      {"weir_server_received_bytes_total", false,
       [](const ServerMetrics& of) { return of.bytes_in; }, "Bytes received"},
      {"weir_server_sent_bytes_total", false, [](const ServerMetrics& of) { return of.bytes_out; },
       "Bytes sent"},
      {"weir_server_handshakes_total", false, [](const ServerMetrics& of) { return of.handshakes; },
       "TLS handshakes that succeeded"},
      {"weir_server_failed_handshakes_total", false,
       [](const ServerMetrics& of) { return of.failed_handshakes; }, "TLS handshakes that failed"},
  };
  for (const OfServer& metric : kOfServers) {
    add_metric(text, metric.name, metric.is_gauge ? "gauge" : "counter", metric.help);
    std::size_t number = 0;
    for (const auto& [name, metrics] : snapshot.servers) {
      text += std::string(metric.name) + "{server=\"" + std::to_string(++number) + "\",name=\"" +
              label(name) + "\"} " + std::to_string(metric.value(metrics)) + '\n';
    }
  }
  return text;
}

std::string page_as_html(const Snapshot& snapshot) {
  return "<!DOCTYPE html>\n<html lang=en><head><meta charset=utf-8><meta http-equiv=refresh "
         "content=2><title>weir</title><style>body{font:14px sans-serif;margin:1em}"
         "table{border-collapse:collapse}td,th{padding:2px 8px;text-align:left;"
         "border-bottom:1px solid #ddd}.n{text-align:right}pre{background:#f6f6f6;padding:8px}"
         "</style></head><body>\n<h1>weir</h1>\n<h2>Loops</h2>\n" +
         as_html(table_of_loops(snapshot)) + "<h2>Tasks</h2>\n<pre>" +
         escaped(tasks_as_text(snapshot)) + "</pre>\n<h2>Connections</h2>\n" +
         as_html(table_of_connections(snapshot)) + "</body></html>\n";
}

}  // namespace weir::detail
