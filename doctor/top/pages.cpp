#include "pages.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "waits.h"

namespace top {
namespace {

constexpr std::size_t kMostWaits = 1000;

std::string seconds(std::uint64_t ms) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.3f s", static_cast<double>(ms) / 1000);
  return text.data();
}

/// Columns of text, numbers to the right; the last column is as long as it likes.
class Table {
 public:
  struct Column {
    const char* name;
    bool to_the_right = true;
  };
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  void add(std::vector<std::string> cells, bool is_bad = false) {
    for (std::string& cell : cells) cell = look::harmless(cell);
    rows_.emplace_back(std::move(cells), is_bad);
  }

  [[nodiscard]] Section section(std::string title) const {
    std::vector<std::size_t> widths;
    std::vector<std::string> names;
    for (std::size_t i = 0; i < columns_.size(); ++i) {
      names.emplace_back(columns_[i].name);
      std::size_t width = names.back().size();
      for (const auto& [cells, is_bad] : rows_) width = std::max(width, cells[i].size());
      widths.push_back(width);
    }
    Section section{std::move(title), line(names, widths), {}};
    for (const auto& [cells, is_bad] : rows_) {
      section.rows.push_back({line(cells, widths), is_bad});
    }
    return section;
  }

 private:
  [[nodiscard]] std::string line(const std::vector<std::string>& cells,
                                 const std::vector<std::size_t>& widths) const {
    std::string text;
    for (std::size_t i = 0; i < cells.size(); ++i) {
      const std::string gap(widths[i] - cells[i].size(), ' ');
      if (i > 0) text += "  ";
      if (columns_[i].to_the_right) text += gap;
      text += cells[i];
      if (!columns_[i].to_the_right) text += gap;
    }
    text.erase(text.find_last_not_of(' ') + 1);
    return text;
  }

  std::vector<Column> columns_;
  std::vector<std::pair<std::vector<std::string>, bool>> rows_;
};

std::string key_of(const look::Json& row, const char* name) {
  const look::Json& key = row[name];
  return key.text().empty() ? std::to_string(key.number()) : key.text();
}

/// Of something counted: since it began, or in a second of late.
class Rates {
 public:
  /// `key` tells one row from another.
  Rates(const look::Json& before, const char* key, double seconds) : key_(key), seconds_(seconds) {
    for (const look::Json& row : before.items()) earlier_.emplace(key_of(row, key), &row);
  }

  [[nodiscard]] bool grow() const noexcept { return seconds_ > 0; }
  [[nodiscard]] std::uint64_t of(const look::Json& row, const char* counter) const {
    const std::uint64_t value = row[counter].number();
    if (!grow()) return value;
    const auto earlier = earlier_.find(key_of(row, key_));
    if (earlier == earlier_.end()) return 0;
    const std::uint64_t then = (*earlier->second)[counter].number();
    const auto growth = static_cast<double>(value - std::min(value, then));
    return static_cast<std::uint64_t>(growth / seconds_ + 0.5);
  }

 private:
  const char* key_;
  double seconds_;
  std::unordered_map<std::string, const look::Json*> earlier_;
};

Rates rates_of(look::Json look::Look::* rows, const char* key, const look::Look& now,
               const look::Look* before) {
  using Seconds = std::chrono::duration<double>;
  if (before == nullptr) return {{}, key, 0};
  return {before->*rows, key, Seconds(now.when - before->when).count()};
}

std::string state_of(const look::Json& loop) {
  if (!look::is_stuck(loop)) return loop["state"].text();
  return "STUCK in one turn for " + seconds(loop["turn_ms"].number()) + ", thread " +
         std::to_string(loop["thread"].number());
}

/// How late timers fired on the average: of late, or since the loop began.
std::string lag_of(const look::Look& now, const look::Look* before, std::uint64_t loop) {
  const auto lag = now.lags.find(loop);
  if (lag == now.lags.end()) return "-";
  look::Lag of = lag->second;
  if (before != nullptr) {
    if (const auto then = before->lags.find(loop); then != before->lags.end()) {
      of.seconds -= then->second.seconds;
      of.timers -= then->second.timers;
    }
  }
  if (of.timers <= 0) return "-";
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.3f ms", of.seconds / of.timers * 1000);
  return text.data();
}

/// What the thread of a loop that is stuck does, where that is known.
std::vector<Row> rows_of_thread(const look::Json& thread) {
  std::vector<Row> rows;
  const auto add = [&](const std::string& text) {
    rows.push_back({std::string(5, ' ') + look::harmless(text), false});
  };
  if (const std::string state = thread["state"].text(); !state.empty()) add("the thread " + state);
  const auto add_place = [&](const char* what, const look::Json& at) {
    if (!at.is_object()) return;
    add(what + at["function"].text() + " at " + at["file"].text() + ':' +
        std::to_string(at["line"].number()));
  };
  add_place("its task awaited last in ", thread["awaited_last"]);
  add_place("its task was spawned by ", thread["spawned_by"]);
  for (const look::Json& frame : thread["stack"].items()) add("  " + frame.text());
  return rows;
}

/// That `/tasks` has of the loop; null: nothing.
const look::Json& thread_of(const look::Look& look, const look::Json& loop) {
  static const look::Json kNone;
  for (const look::Json& tasks : look.tasks.items()) {
    if (tasks["loop"].number() == loop["number"].number()) return tasks["thread"];
  }
  return kNone;
}

Section section_of_loops(const look::Look& now, const look::Look* before) {
  const Rates rates = rates_of(&look::Look::loops, "number", now, before);
  const bool grows = rates.grow();
  Table table({{"#"},
               {"name", false},
               {"state", false},
               {grows ? "turns/s" : "turns"},
               {grows ? "resumed/s" : "resumed"},
               {"lag"},
               {"tasks"},
               {"connections"},
               {"leased"},
               {"engine", false}});
  for (const look::Json& loop : now.loops.items()) {
    const auto number = [&](const char* name) { return std::to_string(loop[name].number()); };
    table.add({number("number"), loop["name"].text(), state_of(loop),
               std::to_string(rates.of(loop, "turns")), std::to_string(rates.of(loop, "resumed")),
               lag_of(now, before, loop["number"].number()), number("tasks"), number("connections"),
               number("buffers_leased"), loop["engine"].text()},
              look::is_stuck(loop));
  }
  Section section = table.section("loops");
  std::vector<Row> rows;
  for (std::size_t i = 0; i < section.rows.size(); ++i) {
    rows.push_back(std::move(section.rows[i]));
    const std::vector<Row> more = rows_of_thread(thread_of(now, now.loops.items()[i]));
    rows.insert(rows.end(), more.begin(), more.end());
  }
  section.rows = std::move(rows);
  return section;
}

std::uint64_t most_of(const std::vector<Flame>& flames) {
  std::uint64_t most = 1;
  for (const Flame& flame : flames) {
    most = std::max({most, flame.count, most_of(flame.children)});
  }
  return most;
}

void add_flames(Table& table, const std::vector<Flame>& flames, std::size_t depth,
                std::uint64_t most) {
  constexpr std::uint64_t kBar = 20;
  for (const Flame& flame : flames) {
    const std::uint64_t length = std::max<std::uint64_t>(1, flame.count * kBar / most);
    table.add({std::to_string(flame.count), std::string(std::min(length, kBar), '#'),
               seconds(flame.oldest_ms), std::string(2 * depth, ' ') + flame.place.text()});
    add_flames(table, flame.children, depth + 1, most);
  }
}

Section section_of_places(const look::Look& now) {
  Table table({{"tasks"}, {"", false}, {"oldest"}, {"where, and for what", false}});
  const std::vector<Flame> flames = flames_of(now.tasks);
  add_flames(table, flames, 0, most_of(flames));
  return table.section("tasks by the place where they wait");
}

Section section_of_waits(const look::Look& now) {
  Table table({{"waits"}, {"loop", false}, {"where, for what, and below whom", false}});
  std::vector<Wait> waits = waits_of(now.tasks);
  if (waits.size() > kMostWaits) waits.resize(kMostWaits);
  for (const Wait& wait : waits) {
    std::string text = wait.place.text();
    for (const Place& above : wait.above) {
      text += "  <  " + above.function;
      if (above.line > 0) text += " at " + above.file + ':' + std::to_string(above.line);
    }
    if (!wait.name.empty()) text += "  \"" + wait.name + '"';
    if (!wait.connection.empty()) text += "  [" + wait.connection + ']';
    table.add({seconds(wait.waiting_ms), wait.loop, text});
  }
  return table.section("oldest waits");
}

/// Someone waits: for a handler that reads, or for a peer. Above its high mark a sender waits until
/// the low one is reached.
bool is_held_up(const look::Json& connection) {
  return connection["paused"].yes() || connection["pending"].number() > connection["low"].number();
}

/// Those that send most of late, then those that hold most.
std::vector<const look::Json*> busiest(const look::Look& now, const Rates& rates) {
  std::vector<std::pair<std::array<std::uint64_t, 2>, const look::Json*>> order;
  for (const look::Json& connection : now.connections.items()) {
    order.push_back({{rates.of(connection, "sent"),
                      connection["pending"].number() + connection["unread"].number()},
                     &connection});
  }
  // Those that stand first in memory stand first in the list.
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  });
  std::vector<const look::Json*> sorted;
  for (const auto& [key, connection] : order) sorted.push_back(connection);
  return sorted;
}

Section section_of_connections(const look::Look& now, const Rates& rates) {
  const bool grows = rates.grow();
  Table table({{"name", false},
               {"loop", false},
               {"state", false},
               {grows ? "sent/s" : "sent"},
               {"pending"},
               {"high"},
               {"unread"},
               {"input_high"},
               {"", false}});
  for (const look::Json* connection : busiest(now, rates)) {
    const look::Json& of = *connection;
    const auto number = [&](const char* name) { return std::to_string(of[name].number()); };
    std::string remarks = of["paused"].yes() ? "paused " : "";
    if (of["tls"].yes()) remarks += "TLS";
    table.add({of["name"].text(), of["loop"].text(), of["state"].text(),
               std::to_string(rates.of(of, "sent")), number("pending"), number("high"),
               number("unread"), number("input_high"), remarks},
              is_held_up(of));
  }
  return table.section("busiest connections");
}

look::Json json_of(const Place& place, look::Json::Members members) {
  members.insert(members.begin(), {{"function", place.function},
                                   {"file", place.file},
                                   {"line", place.line},
                                   {"waits_for", place.waits_for}});
  return members;
}

look::Json json_of(const std::vector<Flame>& flames) {
  look::Json::Items items;
  for (const Flame& flame : flames) {
    items.push_back(json_of(flame.place, {{"count", flame.count},
                                          {"oldest_ms", flame.oldest_ms},
                                          {"children", json_of(flame.children)}}));
  }
  return items;
}

}  // namespace

std::vector<Section> sections_of(const look::Look& now, const look::Look* before) {
  return {section_of_loops(now, before), section_of_places(now), section_of_waits(now),
          section_of_connections(now, rates_of(&look::Look::connections, "name", now, before))};
}

look::Json as_json(const look::Look& look, look::Json::Members members) {
  look::Json::Items oldest;
  for (const Wait& wait : waits_of(look.tasks)) {
    if (oldest.size() == kMostWaits) break;
    look::Json::Items above;
    for (const Place& place : wait.above) above.push_back(json_of(place, {}));
    oldest.push_back(json_of(wait.place, {{"waiting_ms", wait.waiting_ms},
                                          {"loop", wait.loop},
                                          {"connection", wait.connection},
                                          {"name", wait.name},
                                          {"above", std::move(above)}}));
  }
  look::Json::Items loops;
  for (const look::Json& loop : look.loops.items()) {
    loops.push_back(loop.with("view", thread_of(look, loop)));
  }
  look::Json::Items connections;
  const Rates since_the_beginning({}, "name", 0);
  for (const look::Json* connection : busiest(look, since_the_beginning)) {
    connections.push_back(*connection);
  }
  members.insert(members.end(), {{"address", look.address},
                                 {"loops", std::move(loops)},
                                 {"places", json_of(flames_of(look.tasks))},
                                 {"oldest", std::move(oldest)},
                                 {"connections", std::move(connections)}});
  return members;
}

}  // namespace top
