#pragma once

#include <weir/io/random.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

/// The scripts that the model is held against the kernels by: operations of two programs on the
/// two ends of a connection, one after the other.
namespace weir::test::differential {

enum class Act : std::uint8_t {
  open,          // a connection, as the bits of `amount` say; the ends are left and right
  refused,       // connects where nobody listens
  unaccepted,    // a listener that is closed over a client
  send,          // a few bytes
  flood,         // more than all buffers take
  read,          // all that is there, by reads of any size
  read_most,     // the same, of `amount` bytes at first
  read_exactly,  // `amount` bytes, as the next ones
  read_until,
  read_big,
  peek,
  drain,  // all that is under way
  shutdown,
  flush,
  close,
  reset,
  drop_read,
  drop_send,
  look,        // what holds, without a change
  take_error,  // SO_ERROR
};

/// What `amount` says of an `open`.
enum Shape : std::uint32_t {
  left_weir = 1,  // else a plain socket
  right_weir = 2,
  small_buffers = 4,
  small_input = 8,  // the mark of weir's input
  no_linger = 16,
  accept_first = 32,  // the accept waits for the client
  accept_dropped = 64,
};

struct Step {
  Act act = Act::look;
  bool left = false;
  std::uint32_t amount = 0;
};

struct Script {
  std::uint64_t seed = 0;
  std::vector<Step> steps = {};
};

inline constexpr std::array<std::pair<const char*, unsigned>, 20> kActs = {{
    // The name, and how often it comes.
    {"open", 3},  {"refused", 1},   {"unaccepted", 1},   {"send", 22},      {"flood", 3},
    {"read", 9},  {"read most", 4}, {"read exactly", 8}, {"read until", 3}, {"read big", 2},
    {"peek", 3},  {"drain", 5},     {"shutdown", 5},     {"flush", 2},      {"close", 6},
    {"reset", 4}, {"drop read", 3}, {"drop send", 2},    {"look", 8},       {"take error", 2},
}};

inline std::string text_of(const Step& step) {
  const std::string name = kActs[static_cast<std::size_t>(step.act)].first;
  if (step.act == Act::refused || step.act == Act::unaccepted) return name;
  if (step.act != Act::open) {
    return std::string(step.left ? "left " : "right ") + name + ' ' + std::to_string(step.amount);
  }
  const auto has = [&](Shape bit) { return (step.amount & bit) != 0; };
  std::string text = name + ": " + (has(left_weir) ? "weir" : "plain") + " to " +
                     (has(right_weir) ? "weir" : "plain");
  if (has(small_buffers)) text += ", small buffers";
  if (has(small_input)) text += ", small input";
  if (has(no_linger)) text += ", no linger";
  if (has(accept_first)) text += ", accept first";
  if (has(accept_dropped)) text += ", an accept dropped";
  return text;
}

inline Step make_step(weir::detail::Random& random) {
  unsigned all = 0;
  for (const auto& act : kActs) all += act.second;
  std::uint64_t drawn = random.below(all);
  std::size_t which = 0;
  while (drawn >= kActs[which].second) drawn -= kActs[which++].second;
  Step step{.act = static_cast<Act>(which), .left = random.below(2) == 0};
  const bool large = random.below(6) == 0;
  step.amount = static_cast<std::uint32_t>(1 + random.below(large ? 3000 : 40));
  if (step.act == Act::open) step.amount = static_cast<std::uint32_t>(random.below(128));
  return step;
}

inline Script make_script(std::uint64_t seed) {
  weir::detail::Random random(seed);
  Script script{.seed = seed};
  script.steps.push_back(
      {.act = Act::open, .amount = static_cast<std::uint32_t>(random.below(128))});
  const std::uint64_t count = 3 + random.below(20);
  while (script.steps.size() < count) script.steps.push_back(make_step(random));
  return script;
}

/// As few of the steps as still fail, each time by the same function.
inline Script shrink(Script script, const std::function<bool(const Script&)>& fails) {
  for (std::size_t size = std::max<std::size_t>(1, script.steps.size() / 2); size > 0; size /= 2) {
    for (std::size_t at = 0; at < script.steps.size();) {
      Script fewer = script;
      const auto first = fewer.steps.begin() + static_cast<std::ptrdiff_t>(at);
      const auto left = fewer.steps.size() - at;
      fewer.steps.erase(first, first + static_cast<std::ptrdiff_t>(std::min(size, left)));
      if (fails(fewer)) {
        script = std::move(fewer);
      } else {
        at += size;
      }
    }
  }
  return script;
}

}  // namespace weir::test::differential
