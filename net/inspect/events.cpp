#include <weir/core/flight_words.h>
#include <weir/core/survey.h>
#include <weir/net/inspect/render.h>
#include <weir/net/inspect/text.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace weir::detail {
namespace {

using Kind = FlightRecorder::Kind;
using Event = FlightRecorder::Event;

/// How long before the look it was.
std::uint32_t age_of(const Event& event, const LoopReport& loop) noexcept {
  const auto age = static_cast<std::int32_t>(loop.clock_ms - event.clock_ms);
  return static_cast<std::uint32_t>(std::max(age, 0));
}

const char* name_of(Kind kind) noexcept {
  switch (kind) {
    case Kind::none:
      break;
    case Kind::resumed:
      return "resumed";
    case Kind::began:
      return "began";
    case Kind::ended:
      return "ended";
    case Kind::opened:
      return "opened";
    case Kind::broke:
      return "broke";
    case Kind::closed:
      return "closed";
    case Kind::stalled:
      return "stalled";
  }
  return "none";
}

std::string as_json(const Event& event, std::uint32_t age, Places& places) {
  std::string text =
      "{\"ago_ms\":" + std::to_string(age) + ",\"event\":" + json_string(name_of(event.kind));
  const std::string what = std::to_string(event.what);
  switch (event.kind) {
    case Kind::none:
      break;
    case Kind::resumed:
    case Kind::began:
    case Kind::ended: {
      LogLine task;
      write_task(task, event);
      text += ",\"task\":" + json_string(task);
      const auto place = places.of(event);
      if (place && only_hands_on(place->file_name())) {
        text += R"(,"function":"an operand")";
      } else if (place) {
        text += ",\"function\":" + json_string(function_name(place->function_name())) +
                ",\"file\":" + json_string(place->file_name()) +
                ",\"line\":" + std::to_string(place->line());
      }
      break;
    }
    case Kind::broke:
      text += ",\"connection\":" + what + ",\"why\":" + json_string(failure_of(event));
      break;
    case Kind::opened:
      text += ",\"connection\":" + what;
      break;
    case Kind::closed:
      text += ",\"connection\":" + what + ",\"reset\":" + (event.more != 0 ? "true" : "false");
      break;
    case Kind::stalled:
      text += ",\"turn_ms\":" + what;
      break;
  }
  return text + '}';
}

}  // namespace

std::string events_as_text(const Snapshot& snapshot) {
  return events_as_text(snapshot, FlightRecorder::kEvents);
}

std::string events_as_text(const Snapshot& snapshot, std::size_t most) {
  Places places;
  std::string text;
  for (const LoopReport& loop : snapshot.loops) {
    const std::size_t left_out = loop.events.size() - std::min(most, loop.events.size());
    text += "loop " + std::to_string(loop.number) + " \"" + name_of(loop) + "\": its last " +
            std::to_string(loop.events.size() - left_out) + " events, the newest last\n";
    for (std::size_t i = left_out; i < loop.events.size(); ++i) {
      LogLine line;
      line << "  " << seconds(age_of(loop.events[i], loop)) << " ago: ";
      describe(line, loop.events[i], places);
      text.append(std::string_view(line)).append(1, '\n');
    }
  }
  return text;
}

std::string events_as_json(const Snapshot& snapshot) {
  Places places;
  std::string text = "[";
  for (const LoopReport& loop : snapshot.loops) {
    text += text.size() > 1 ? ",\n" : "\n";
    text += "{\"loop\":" + std::to_string(loop.number) + ",\"name\":" + json_string(name_of(loop)) +
            ",\"events\":[";
    bool is_first = true;
    for (const Event& event : loop.events) {
      text += is_first ? "\n" : ",\n";
      is_first = false;
      text += as_json(event, age_of(event, loop), places);
    }
    text += "]}";
  }
  return text + "\n]\n";
}

}  // namespace weir::detail
