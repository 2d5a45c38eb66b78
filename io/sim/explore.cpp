#include <weir/io/sim/world_impl.h>

#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <system_error>

namespace weir::sim {
namespace detail {

std::optional<std::uint64_t> number_from(const char* variable) {
  const char* text = std::getenv(variable);  // NOLINT(concurrency-mt-unsafe)
  if (text == nullptr || *text == '\0') return std::nullopt;
  const std::string_view value(text);
  std::uint64_t number = 0;
  const auto parsed = std::from_chars(value.data(), value.data() + value.size(), number);
  if (parsed.ec != std::errc() || parsed.ptr != value.data() + value.size()) {
    throw std::invalid_argument("weir: " + std::string(variable) + " is \"" + std::string(value) +
                                "\"; it must be a number");
  }
  return number;
}

std::string describe(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const std::exception& exception) {
    return exception.what();
  } catch (...) {
    return "an exception of unknown type";
  }
}

}  // namespace detail

std::string Exploration::text() const {
  std::string text;
  for (const Failed& failed : failures) text += failed.text + "\n";
  return text;
}

Exploration explore(const ExploreOptions& options, const std::function<void(World&)>& scenario) {
  Exploration result;
  std::uint64_t first = options.first;
  std::uint64_t count = number_from("WEIR_SIM_SEEDS").value_or(options.count);
  if (const auto only = number_from("WEIR_SIM_SEED")) {
    first = *only;
    count = 1;
  }
  const bool shows = ::isatty(STDERR_FILENO) == 1;
  for (std::uint64_t i = 0; i < count && result.failures.size() < options.most_failures; ++i) {
    WorldOptions world_options = options.world;
    world_options.seed = first + i;
    std::uint64_t hash = 0;
    try {
      World world(world_options);
      try {
        scenario(world);
      } catch (const Failure&) {
        throw;
      } catch (...) {
        throw Failure(world.impl_->report(describe(std::current_exception())));
      }
      hash = world.trace_hash();
      world.finish();
    } catch (const Failure& failure) {
      result.failures.push_back({first + i, failure.what()});
    }
    ++result.runs;
    result.hash = (result.hash ^ hash) * 0x9e3779b97f4a7c15;
    if (shows && (i % 64 == 0 || i + 1 == count)) {
      const std::string line = "\r" + std::string(options.name) + ": " + std::to_string(i + 1) +
                               " of " + std::to_string(count) + " seeds, " +
                               std::to_string(result.failures.size()) + " failed" +
                               (i + 1 == count ? "\n" : "");
      std::fputs(line.c_str(), stderr);
    }
  }
  return result;
}

}  // namespace weir::sim
