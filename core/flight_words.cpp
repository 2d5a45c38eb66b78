#include <weir/core/flight_words.h>
#include <weir/core/stderr.h>
#include <weir/core/survey.h>
#include <weir/coro/error.h>
#include <weir/coro/place.h>

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <new>
#include <string>
#include <string_view>
#include <system_error>

namespace weir::detail {
namespace {

using Kind = FlightRecorder::Kind;

/// What `write_stderr_within` takes.
constexpr std::size_t kMostText = 4096;

bool is_loaded(const void* data) noexcept {
  Dl_info info{};
  return data != nullptr && ::dladdr(data, &info) != 0;
}

/// Whether it is a text as compilers leave it: UTF-8 without control characters. Of a promise that
/// is not the library's it may be anything that has been loaded, code as well.
bool is_text(const char* text) noexcept {
  constexpr std::uintptr_t kPage = 4096;
  int more = 0;  // bytes of a letter that has begun
  for (const char* at = text;; ++at) {
    const bool new_page = at == text || std::bit_cast<std::uintptr_t>(at) % kPage == 0;
    if (new_page && !is_loaded(at)) return false;
    const auto byte = static_cast<unsigned char>(*at);
    if (byte == 0) return at != text && more == 0;
    if (byte < 0x20 || byte == 0x7f || (byte >> 6U == 2) != (more > 0)) return false;
    more = more > 0 ? more - 1 : std::max(std::countl_one(byte) - 1, 0);
    if (more > 3) return false;
  }
}

}  // namespace

std::optional<std::source_location> place_at(std::uint64_t what) noexcept {
  constexpr std::size_t kWords = 3;  // file, function, and line with column
  const auto* data = std::bit_cast<const std::uintptr_t*>(static_cast<std::uintptr_t>(what));
  if (what % alignof(void*) != 0 || !is_loaded(data) || !is_loaded(data + kWords - 1)) {
    return std::nullopt;
  }
  const auto place = std::bit_cast<std::source_location>(std::bit_cast<PlaceInSource>(data));
  if (!is_text(place.file_name()) || !is_text(place.function_name())) return std::nullopt;
  return place;
}

void write_task(LogLine& to, const FlightRecorder::Event& event) noexcept {
  if (event.more == 0) {
    to << "what is in no task";
    return;
  }
  char digits[8];
  const auto end = std::to_chars(digits, digits + sizeof digits, event.more, 16);
  to << "task " << std::string_view(digits, static_cast<std::size_t>(end.ptr - digits));
}

std::optional<std::source_location> Places::of(const FlightRecorder::Event& event) noexcept {
  if (event.kind != Kind::resumed || event.what == 0) return std::nullopt;
  Known& known = known_[event.what / alignof(std::source_location) % known_.size()];
  if (known.what != event.what) known = {event.what, place_at(event.what)};
  return known.place;
}

std::string failure_of(const FlightRecorder::Event& event) {
  // Of 24 bits with a sign: an errno, a negated `errc`, or a transform's own.
  const auto failure = static_cast<std::int32_t>(event.more << 8U) / 256;
  if (failure > 0) return std::generic_category().message(failure);
  if (failure < -0xff) return "its TLS, or another transform, failed";
  return make_error_code(static_cast<errc>(-failure)).message();
}

void describe(LogLine& to, const FlightRecorder::Event& event, Places& places) {
  switch (event.kind) {
    case Kind::none:
      return;
    case Kind::resumed:
      write_task(to, event);
      to << " resumed";
      if (const auto place = places.of(event)) {
        if (only_hands_on(place->file_name())) {
          to << " in an operand";
        } else {
          to << " in " << function_name(place->function_name()) << " at " << place->file_name()
             << ":" << place->line();
        }
      }
      return;
    case Kind::began:
      write_task(to, event);
      to << " began";
      return;
    case Kind::ended:
      write_task(to, event);
      to << " ended";
      return;
    case Kind::opened:
      to << "connection " << event.what << " opened";
      return;
    case Kind::broke:
      to << "connection " << event.what << " broke: " << failure_of(event);
      return;
    case Kind::closed:
      to << "connection " << event.what << (event.more != 0 ? " reset" : " closed");
      return;
    case Kind::stalled:
      to << "a turn had taken " << event.what << " ms";
      return;
  }
}

void write_last_events(std::chrono::milliseconds limit) noexcept {
  Scheduler* const loop = Scheduler::current_or_null();
  if (loop == nullptr) return;
  try {
    std::array<FlightRecorder::Event, 32> events;
    const std::size_t count = loop->flight.take_last(events);
    const std::string head = "weir: the last events of its loop, the newest last:\n";
    Places places;
    std::string text;  // as many as there is room for
    for (std::size_t i = count; i-- > 0;) {
      LogLine line;
      describe(line, events[i], places);
      const std::string one = "weir:   " + std::string(std::string_view(line)) + '\n';
      if (head.size() + one.size() + text.size() > kMostText) break;
      text.insert(0, one);
    }
    if (count > 0) write_stderr_within(limit, head + text);
  } catch (const std::bad_alloc&) {  // then without them
  }
}

}  // namespace weir::detail
