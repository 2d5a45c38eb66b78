#pragma once

#include <algorithm>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

namespace weir::test {

/// Programs of this build are another processor's, and run by an emulator of it, which has its own
/// ways with signals, inotify and what else it translates.
inline constexpr bool kEmulated = sizeof WEIR_TEST_EMULATOR > 1;

/// The words of a command. Before a program of this build, which `env` may start, stand those of
/// the emulator.
inline std::vector<std::string> command_of(const std::string& program,
                                           const std::vector<std::string>& arguments) {
  const auto is_built = [](const std::string& word) {
#ifdef WEIR_EXAMPLES_DIR
    if (word.starts_with(WEIR_EXAMPLES_DIR)) return true;
#endif
    return word.starts_with(WEIR_TEST_PROGRAMS_DIR);
  };
  std::vector<std::string> words = {program};
  words.insert(words.end(), arguments.begin(), arguments.end());
  const auto built = std::find_if(words.begin(), words.end(), is_built);
  if (built == words.end()) return words;
  std::istringstream emulator(WEIR_TEST_EMULATOR);
  words.insert(built, std::istream_iterator<std::string>(emulator), {});
  return words;
}

}  // namespace weir::test
