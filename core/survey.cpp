#include <weir/core/event_loop.h>
#include <weir/core/survey.h>
#include <weir/coro/place.h>
#include <weir/coro/task_name.h>

#include <string_view>

namespace weir::detail {
namespace {

/// A report is to be read by somebody.
constexpr std::size_t kMostLines = 100'000;
/// Of what stands deeper, the end of each chain alone is shown: where it waits. Nobody reads more,
/// and the indents of all would be the square of that.
constexpr std::size_t kDeepest = 256;
/// After which it is done in one go: what it was at ended each time.
constexpr int kMostBeginnings = 4;

/// Where the parenthesis that ends at `end` begins; npos if there is none.
std::size_t opening(std::string_view text, std::size_t end) noexcept {
  int open = 0;
  for (std::size_t i = end + 1; i-- > 0;) {
    if (text[i] == ')') ++open;
    if (text[i] == '(' && --open == 0) return i;
  }
  return std::string_view::npos;
}

class Walker {
 public:
  Walker(LoopReport& report, std::uint32_t now) noexcept : report_(report), now_(now) {}

  /// Gives the depth of what stands below the scope.
  std::size_t walk(Scope& scope, std::size_t depth) {
    if (scope.kind() == Scope::Kind::group) return depth;
    return walk_chain(Root::of(scope).place(), depth, &scope);
  }

 private:
  /// Of branches, whose scopes no list has: in one go.
  void walk_below(Scope& scope, std::size_t depth) {
    if (depth > kDeepest) {
      report_.tasks_cut = true;
      return;
    }
    std::vector<Scope*> children;  // they are listed with the latest first
    for (Scope* child = scope.first_below(); child != nullptr; child = child->next()) {
      children.push_back(child);
    }
    for (auto child = children.rbegin(); child != children.rend(); ++child) {
      if (full()) {
        report_.tasks_cut = true;
        return;
      }
      walk_below(**child, walk(**child, depth));
    }
  }

  [[nodiscard]] bool full() const noexcept { return report_.tasks.size() == kMostLines; }

  /// Gives the depth of what stands below the last.
  std::size_t walk_chain(const Place* place, std::size_t depth, Scope* scope) {
    const Scope* own = scope;
    for (; place != nullptr; place = place->awaited()) {
      if (depth >= kDeepest && place->awaited() != nullptr) {
        report_.tasks_cut = true;
        continue;
      }
      const Several* several = place->several();
      const bool hands_on = only_hands_on(place->where().file_name());
      if (!hands_on || (place->awaited() == nullptr && several == nullptr)) {
        if (full()) {
          report_.tasks_cut = true;
          return depth;
        }
        TaskLine& line = report_.tasks.emplace_back();
        line.depth = depth++;
        if (!hands_on) line.where = place->where();
        line.words = place->words();
        line.waiting_ms = now_ - scope->ran_ms();
        line.is_root = own != nullptr;
        line.scope = own;
        if (own != nullptr && own->kind() != Scope::Kind::generator) line.name = name_of_task(*own);
        if (own != nullptr && own->kind() == Scope::Kind::task) {
          const std::source_location by = Root::of(*scope).spawned();
          if (by.line() != 0 && !only_hands_on(by.file_name())) line.spawned = by;
        }
        own = nullptr;
      }
      if (several != nullptr) walk_branches(*several, depth);
    }
    return depth;
  }

  void walk_branches(const Several& several, std::size_t depth) {
    depth_ = depth;
    several.each(this, [](void* context, std::size_t, const Place& place, Scope& scope) {
      auto& self = *static_cast<Walker*>(context);
      const std::size_t at = self.depth_;
      if (at <= kDeepest) {
        self.walk_below(scope, self.walk_chain(&place, at, &scope));
      } else {
        self.report_.tasks_cut = true;
      }
      self.depth_ = at;
    });
  }

  LoopReport& report_;
  std::uint32_t now_;
  std::size_t depth_ = 0;
};

}  // namespace

bool only_hands_on(std::string_view file) noexcept {
  for (const std::string_view own :
       {"coro/task.h", "coro/branch.h", "coro/take_result.h", "core/event_loop.h", "core/on.h",
        "io/sim/host.cpp", "io/sim/drop.cpp", "io/sim/world.h"}) {
    if (file.ends_with(own)) return true;
  }
  return false;
}

TaskSurvey::TaskSurvey(EventLoop& loop) noexcept : loop_(loop) {}

void TaskSurvey::begin(LoopReport& report) {
  ++beginnings_;
  levels_.clear();
  mark_.stand_nowhere();
  report.tasks.clear();
  report.tasks_cut = false;
  enter(loop_.top_scope(), 0);
}

/// Whether all is there yet that it stands below.
bool TaskSurvey::still_stands() const noexcept {
  const Scope* at = mark_.parent();
  for (auto level = levels_.rbegin(); level != levels_.rend(); ++level) {
    if (at != level->parent) return false;
    at = at->parent();
  }
  return true;
}

void TaskSurvey::enter(Scope& parent, std::size_t depth) {
  if (parent.first_below() == nullptr) return;
  levels_.push_back({&parent, depth});
  mark_.stand_last_below(parent);
}

bool TaskSurvey::go_on(LoopReport& report, std::size_t lines) {
  if (beginnings_ == 0 || !still_stands()) begin(report);
  const std::size_t end = beginnings_ >= kMostBeginnings ? kMostLines : report.tasks.size() + lines;
  Walker walker(report, loop_.machine().clock_ms());
  while (!levels_.empty() && report.tasks.size() < kMostLines) {
    if (report.tasks.size() >= end && end < kMostLines) return false;
    Scope* const at = mark_.previous();
    if (at == nullptr) {
      Scope* const parent = levels_.back().parent;
      levels_.pop_back();
      if (!levels_.empty()) mark_.stand_before(*parent);
      continue;
    }
    mark_.stand_before(*at);
    const std::size_t below = walker.walk(*at, levels_.back().depth);
    if (below > kDeepest) {
      report.tasks_cut = true;
    } else {
      enter(*at, below);
    }
  }
  report.tasks_cut = report.tasks_cut || !levels_.empty();
  mark_.stand_nowhere();
  return true;
}

std::string function_name(const char* signature) {
  std::string_view text(signature);
  if (const auto with = text.find(" [with "); with != std::string_view::npos) {
    text = text.substr(0, with);
  }
  if (const auto last = text.rfind(')'); last != std::string_view::npos && !text.ends_with('>')) {
    // GCC: `void f(f(int)::_Z1fi.Frame*)` within a coroutine's body.
    if (const auto first = opening(text, last); first != std::string_view::npos && first > 0) {
      text = text.substr(0, first);
    }
  }
  // The result's type, which ends at the last space outside of brackets.
  int depth = 0;
  for (std::size_t i = text.size(); i-- > 0;) {
    const char c = text[i];
    if (c == '>' || c == ')' || c == '}') ++depth;
    if (c == '<' || c == '(' || c == '{') --depth;
    if (c == ' ' && depth == 0) {
      text = text.substr(i + 1);
      break;
    }
  }
  for (const std::string_view unnamed : {"{anonymous}::", "(anonymous namespace)::"}) {
    if (text.starts_with(unnamed)) text.remove_prefix(unnamed.size());
  }
  return std::string(text);
}

ThreadView Machine::look_at_thread(int /*thread*/) { return {}; }

std::optional<SocketView> Machine::look_at_socket(int /*fd*/) noexcept { return std::nullopt; }

}  // namespace weir::detail
