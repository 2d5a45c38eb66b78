#include <weir/core/task_words.h>
#include <weir/net/inspect/counters.h>
#include <weir/net/inspect/render.h>
#include <weir/net/inspect/text.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <optional>
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
  template <class Number>
  Cell(const std::optional<Number>& number)  // NOLINT: likewise
      : value(number ? std::to_string(*number) : "null"), is_text(false) {}
  Cell(std::uint64_t number) : value(std::to_string(number)), is_text(false) {}  // NOLINT: likewise

  /// For people.
  [[nodiscard]] const std::string& shown() const noexcept {
    static const std::string unknown = "-";
    return is_text || value != "null" ? value : unknown;
  }

  std::string value;
  bool is_text;
};

struct Table {
  std::vector<const char*> columns;
  std::vector<std::vector<Cell>> rows;
};

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
    for (std::size_t i = 0; i < widths.size(); ++i) {
      add(i, row[i].shown(), !row[i].is_text);
    }
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
      text += (cell.is_text ? "<td>" : "<td class=n>") + escaped(cell.shown()) + "</td>";
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

/// Leased, and neither unread nor pending on a connection. None where nobody told.
std::uint64_t buffers_kept(const LoopReport& loop) {
  if (loop.state != LoopReport::State::answered) return 0;
  std::uint64_t explained = 0;
  for (const ConnectionLine& line : loop.connections) {
    explained += line.unread_buffers + line.pending_buffers;
  }
  return loop.metrics.buffers_leased - std::min(explained, loop.metrics.buffers_leased);
}

/// Where the chunks were read that keep them, those with the most first.
std::string keepers(const LoopReport& loop) {
  constexpr std::size_t kMost = 3;
  std::string text;
  for (std::size_t i = 0; i < std::min(loop.kept.size(), kMost); ++i) {
    const KeptLine& line = loop.kept[i];
    if (i > 0) text += ", ";
    text += std::to_string(line.buffers) + " read ";
    if (line.where.line() == 0) {
      text += line.read_at == 0 ? "without waiting" : "by a coroutine of another kind";
    } else if (only_hands_on(line.where.file_name())) {
      text += "by an operand";
    } else {
      text += "by " + words_of(line.where);
    }
  }
  if (loop.kept.size() > kMost) text += ", …";
  return text;
}

Table table_of_loops(const Snapshot& snapshot) {
  Table table{{"number", "name", "engine", "state", "thread", "turn_ms", "tasks", "connections"},
              {}};
  for (const Counter& counter : kCounters) table.columns.push_back(counter.name);
  table.columns.push_back("buffers_kept");
  table.columns.push_back("kept_by");
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
    row.emplace_back(buffers_kept(loop));
    row.emplace_back(keepers(loop));
    table.rows.push_back(std::move(row));
  }
  return table;
}

template <class Number>
std::optional<Number> of_socket(const ConnectionLine& line, Number SocketView::* fact) {
  return line.socket ? std::optional((*line.socket).*fact) : std::nullopt;
}

Table table_of_connections(const Snapshot& snapshot) {
  Table table{{"name", "loop", "state", "age_ms", "unread", "input_high", "paused", "pending",
               "high", "low", "sent", "tls", "unread_buffers", "pending_buffers", "received",
               "acknowledged", "idle_ms", "round_trip_us", "retransmits"},
              {}};
  for (const LoopReport& loop : snapshot.loops) {
    for (const ConnectionLine& line : loop.connections) {
      table.rows.push_back(
          {line.name, name_of(loop), line.state, std::uint64_t{line.age_ms},
           std::uint64_t{line.unread}, std::uint64_t{line.input_high}, line.paused,
           std::uint64_t{line.pending}, std::uint64_t{line.high}, std::uint64_t{line.low},
           line.sent, line.is_secure, std::uint64_t{line.unread_buffers},
           std::uint64_t{line.pending_buffers}, of_socket(line, &SocketView::received),
           of_socket(line, &SocketView::acknowledged), of_socket(line, &SocketView::idle_ms),
           of_socket(line, &SocketView::round_trip_us), of_socket(line, &SocketView::retransmits)});
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

/// The words of a loop's tasks, with the connections that they handle or read from.
class Wording {
 public:
  explicit Wording(const LoopReport& loop) {
    for (const ConnectionLine& line : loop.connections) {
      if (line.handler != nullptr) of_tasks_.emplace(line.handler, &line);
      if (line.reader != nullptr) of_tasks_.emplace(line.reader, &line);
    }
  }

  [[nodiscard]] TaskWords of(const TaskLine& line) {
    TaskWords words{function(line.where), line.where.file_name(), line.where.line(), line.words};
    if (line.where.line() == 0) words.function = "an operand";
    if (!line.name.empty()) words.function += " \"" + line.name + '"';
    const auto found = of_tasks_.find(line.scope);
    if (found != of_tasks_.end()) words.function += " [" + found->second->name + ']';
    return words;
  }

  /// Most tasks are in one of a few.
  const std::string& function(const std::source_location& where) {
    const auto [found, is_new] = functions_.try_emplace(where.function_name());
    if (is_new) found->second = function_name(where.function_name());
    return found->second;
  }

 private:
  std::unordered_map<const Scope*, const ConnectionLine*> of_tasks_;
  std::unordered_map<const void*, std::string> functions_;  // by what the compiler calls them
};

void add_view(std::string& text, const ThreadView& view) {
  if (!view.state.empty()) text += "  the thread " + view.state + '\n';
  if (view.task.line() != 0) text += "  its task awaited last in " + words_of(view.task) + '\n';
  if (view.spawned.line() != 0) {
    text += "  its task was spawned by " + words_of(view.spawned) + '\n';
  }
  for (const std::string& frame : view.stack) text += "    " + frame + '\n';
}

std::string place_as_json(const std::source_location& where, std::string_view function) {
  return "{\"function\":" + json_string(function) + ",\"file\":" + json_string(where.file_name()) +
         ",\"line\":" + std::to_string(where.line()) + '}';
}

std::string view_as_json(const ThreadView& view) {
  std::string text = "{\"state\":" + json_string(view.state);
  if (view.task.line() != 0)
    text +=
        ",\"awaited_last\":" + place_as_json(view.task, function_name(view.task.function_name()));
  if (view.spawned.line() != 0)
    text += ",\"spawned_by\":" +
            place_as_json(view.spawned, function_name(view.spawned.function_name()));
  text += ",\"stack\":[";
  for (std::size_t i = 0; i < view.stack.size(); ++i) {
    if (i > 0) text += ',';
    text += json_string(view.stack[i]);
  }
  return text + "]}";
}

void add_tree(std::string& text, const LoopReport& loop) {
  text += "loop " + std::to_string(loop.number) + " \"" + name_of(loop) + "\" (" + loop.engine +
          "): " + name_of(loop.state);
  if (loop.state == LoopReport::State::stuck) {
    text += " in one turn for " + seconds(loop.turn_ms) + ", thread " + std::to_string(loop.thread);
  }
  text += '\n';
  add_view(text, loop.view);
  Wording wording(loop);
  for (const TaskLine& line : loop.tasks) {
    const TaskWords words = wording.of(line);
    text.append(2 * line.depth + 2, ' ');
    text += words.function;
    if (words.line > 0) {
      text.append(" at ").append(words.file).append(1, ':').append(std::to_string(words.line));
    }
    text.append(", ").append(seconds(line.waiting_ms));
    if (!words.waits_for.empty()) text.append(": ").append(words.waits_for);
    if (line.spawned.line() > 0) {
      text.append(" (spawned by ").append(wording.function(line.spawned)).append(" at ");
      text.append(line.spawned.file_name()).append(1, ':');
      text.append(std::to_string(line.spawned.line())).append(1, ')');
    }
    text += '\n';
  }
  if (loop.tasks_cut) text += "  … and more\n";
}

}  // namespace

std::string name_of(const LoopReport& loop) {
  return loop.name.empty() ? "loop " + std::to_string(loop.number) : loop.name;
}

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
            ",\"state\":" + json_string(name_of(loop.state));
    if (!loop.view.state.empty()) text += ",\"thread\":" + view_as_json(loop.view);
    text += ",\"tasks\":[";
    Wording wording(loop);
    std::size_t open = 0;  // lines that have not been closed
    for (const TaskLine& line : loop.tasks) {
      const TaskWords words = wording.of(line);
      const bool is_first = line.depth == open;
      for (; open > line.depth; --open) text += "]}";
      text += is_first ? "\n" : ",\n";
      text +=
          "{\"function\":" + json_string(words.function) + ",\"file\":" + json_string(words.file) +
          ",\"line\":" + std::to_string(words.line) +
          (line.name.empty() ? std::string() : ",\"name\":" + json_string(line.name)) +
          (line.spawned.line() == 0
               ? std::string()
               : ",\"spawned_by\":" + place_as_json(line.spawned, wording.function(line.spawned))) +
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
