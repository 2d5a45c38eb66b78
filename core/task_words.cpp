#include <weir/core/task_words.h>

#include <cstddef>
#include <string_view>

namespace weir::detail {
namespace {

/// Where the parenthesis that ends at `end` begins; npos if there is none.
std::size_t opening(std::string_view text, std::size_t end) noexcept {
  int open = 0;
  for (std::size_t i = end + 1; i-- > 0;) {
    if (text[i] == ')') ++open;
    if (text[i] == '(' && --open == 0) return i;
  }
  return std::string_view::npos;
}

}  // namespace

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

std::string describe(const TaskLine& line) {
  std::string text = "an operand";
  if (line.where.line() > 0) {
    text = function_name(line.where.function_name()) + " at " + line.where.file_name() + ':' +
           std::to_string(line.where.line());
  }
  if (*line.words != '\0') text += std::string(": ") + line.words;
  return text;
}

}  // namespace weir::detail
