#include <weir/core/task_words.h>

namespace weir::detail {
std::string describe(const TaskLine& line) {
  std::string text = "an operand";
  if (line.where.line() > 0) {
    text = function_name(line.where.function_name()) + " at " + line.where.file_name() + ':' +
           std::to_string(line.where.line());
  }
  if (!line.name.empty()) text += " \"" + line.name + '"';
  if (*line.words != '\0') text += std::string(": ") + line.words;
  return text;
}

}  // namespace weir::detail
