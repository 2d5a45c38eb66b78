#include <weir/core/task_words.h>

namespace weir::detail {

std::string words_of(const std::source_location& where) {
  return function_name(where.function_name()) + " at " + where.file_name() + ':' +
         std::to_string(where.line());
}

std::string describe(const TaskLine& line) {
  std::string text = "an operand";
  if (line.where.line() > 0) text = words_of(line.where);
  if (!line.name.empty()) text += " \"" + line.name + '"';
  if (*line.words != '\0') text += std::string(": ") + line.words;
  if (line.spawned.line() > 0) text += " (spawned by " + words_of(line.spawned) + ')';
  return text;
}

}  // namespace weir::detail
