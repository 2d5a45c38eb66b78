#include "waits.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace top {
namespace {

/// Of `serve "login" [chat-10.0.0.7:40122#12]`, a function, the name that the task has and the
/// connection that it reads, the latter two are the wait's.
Place place_of(const look::Json& task, Wait& wait) {
  std::string function = task["function"].text();
  if (const std::size_t at = function.rfind(" [");
      at != std::string::npos && function.ends_with(']')) {
    wait.connection = function.substr(at + 2, function.size() - at - 3);
    function.resize(at);
  }
  if (const std::string name = task["name"].text(); !name.empty()) {
    wait.name = name;
    if (const std::string suffix = " \"" + name + '"'; function.ends_with(suffix)) {
      function.resize(function.size() - suffix.size());
    }
  }
  return {std::move(function), task["file"].text(), task["line"].number(),
          task["waits_for"].text()};
}

void merge(const look::Json& tasks, std::vector<Flame>& into) {
  for (const look::Json& task : tasks.items()) {
    Wait ignored;
    Place place = place_of(task, ignored);
    auto flame = std::find_if(into.begin(), into.end(),
                              [&](const Flame& known) { return known.place == place; });
    if (flame == into.end()) flame = into.insert(into.end(), Flame{std::move(place), 0, 0, {}});
    ++flame->count;
    flame->oldest_ms = std::max(flame->oldest_ms, task["waiting_ms"].number());
    merge(task["children"], flame->children);
  }
}

void sort(std::vector<Flame>& flames) {
  std::sort(flames.begin(), flames.end(), [](const Flame& a, const Flame& b) {
    return std::tie(b.count, b.oldest_ms, a.place.file, a.place.line, a.place.function) <
           std::tie(a.count, a.oldest_ms, b.place.file, b.place.line, b.place.function);
  });
  for (Flame& flame : flames) sort(flame.children);
}

void collect(const look::Json& tasks, Wait wait, std::vector<Wait>& waits) {
  for (const look::Json& task : tasks.items()) {
    Wait own = wait;
    own.place = place_of(task, own);
    own.waiting_ms = task["waiting_ms"].number();
    if (task["children"].items().empty()) {
      waits.push_back(std::move(own));
    } else {
      own.above.insert(own.above.begin(), own.place);
      collect(task["children"], std::move(own), waits);
    }
  }
}

}  // namespace

std::string Place::text() const {
  std::string text = function;
  if (line > 0) text += " at " + file + ':' + std::to_string(line);
  if (!waits_for.empty()) text += ": " + waits_for;
  return text;
}

std::vector<Flame> flames_of(const look::Json& tasks) {
  std::vector<Flame> flames;
  for (const look::Json& loop : tasks.items()) merge(loop["tasks"], flames);
  sort(flames);
  return flames;
}

std::vector<Wait> waits_of(const look::Json& tasks) {
  std::vector<Wait> waits;
  for (const look::Json& loop : tasks.items()) {
    Wait wait;
    wait.loop = loop["name"].text();
    collect(loop["tasks"], wait, waits);
  }
  std::sort(waits.begin(), waits.end(), [](const Wait& a, const Wait& b) {
    return std::tie(b.waiting_ms, a.place.file, a.place.line) <
           std::tie(a.waiting_ms, b.place.file, b.place.line);
  });
  return waits;
}

}  // namespace top
