// weir-doctor [--json]: says which engine weir uses on this machine and why, what this kernel can
// do, and which limits are in a server's way. Exit status 1 if no event loop can be made.
#include <weir/core/logging.h>
#include <weir/io/engines.h>

#include <sys/utsname.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>
#include <string_view>

#include "self_tests.h"
#include "system_limits.h"

namespace {

struct Report {
  std::string kernel;
  weir::detail::EngineChoice engine;
  std::vector<doctor::Capability> capabilities;
  std::vector<doctor::Limit> limits;
};

Report examine() {
  Report report;
  utsname name{};
  ::uname(&name);
  report.kernel = std::string(name.sysname) + " " + name.release + " " + name.machine;
  try {
    report.engine = weir::detail::choose_engine();
  } catch (const std::exception& error) {
    report.engine.why = error.what();
  }
  report.capabilities = doctor::find_capabilities();
  report.limits = doctor::find_limits();
  return report;
}

/// Words in lines of at most 100 columns, each after the first one indented.
void print_wrapped(std::string_view text, std::size_t column, std::size_t indent) {
  constexpr std::size_t kWidth = 100;
  bool first = true;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(' '), text.size());
    if (!first && column + 1 + end > kWidth) {
      std::printf("\n%*s", static_cast<int>(indent), "");
      column = indent;
    } else if (!first) {
      std::printf(" ");
      ++column;
    }
    std::printf("%.*s", static_cast<int>(end), text.data());
    column += end;
    first = false;
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  std::printf("\n");
}

void print_text(const Report& report) {
  constexpr int kIndent = 36;
  std::printf("weir      %s\n", WEIR_VERSION);
  std::printf("kernel    %s\n", report.kernel.c_str());
  std::printf("engine    ");
  print_wrapped(
      (report.engine.name.empty() ? "none" : report.engine.name) + ": " + report.engine.why, 10,
      10);
  std::printf("\ncapabilities, each of them tried just now\n");
  for (const auto& capability : report.capabilities) {
    std::printf("  %-4s%-*s", capability.works ? "yes" : "no", kIndent - 6,
                capability.name.c_str());
    const std::string detail = capability.detail.empty() ? "" : " (" + capability.detail + ")";
    print_wrapped(capability.used_for + detail, kIndent, kIndent);
  }
  std::printf("\nlimits\n");
  for (const auto& limit : report.limits) {
    std::printf("  %-4s%-*s", limit.enough ? "ok" : "low", kIndent - 6, limit.name.c_str());
    print_wrapped(limit.value + ": " + limit.matters_for, kIndent, kIndent);
    if (limit.enough) continue;
    std::printf("%*s", kIndent, "");
    print_wrapped("raise it to " + limit.raise_to + ": " + limit.command, kIndent, kIndent);
  }
}

std::string json_text(std::string_view text) {
  std::string result = "\"";
  for (const char letter : text) {
    if (letter == '"' || letter == '\\') {
      result += '\\';
      result += letter;
    } else if (static_cast<unsigned char>(letter) < 0x20) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\u%04x", static_cast<unsigned>(letter));
      result += escaped;
    } else {
      result += letter;
    }
  }
  return result + '"';
}

const char* literal(bool value) { return value ? "true" : "false"; }

void print_json(const Report& report) {
  std::printf("{\n  \"weir\": %s,\n  \"kernel\": %s,\n", json_text(WEIR_VERSION).c_str(),
              json_text(report.kernel).c_str());
  std::printf("  \"engine\": {\"name\": %s, \"why\": %s},\n",
              report.engine.name.empty() ? "null" : json_text(report.engine.name).c_str(),
              json_text(report.engine.why).c_str());
  std::printf("  \"capabilities\": [");
  const char* separator = "\n";
  for (const auto& capability : report.capabilities) {
    std::printf("%s    {\"name\": %s, \"works\": %s, \"used_for\": %s, \"detail\": %s}", separator,
                json_text(capability.name).c_str(), literal(capability.works),
                json_text(capability.used_for).c_str(), json_text(capability.detail).c_str());
    separator = ",\n";
  }
  std::printf("\n  ],\n  \"limits\": [");
  separator = "\n";
  for (const auto& limit : report.limits) {
    std::printf(
        "%s    {\"name\": %s, \"value\": %s, \"enough\": %s, \"matters_for\": %s, "
        "\"raise_to\": %s, \"command\": %s}",
        separator, json_text(limit.name).c_str(), json_text(limit.value).c_str(),
        literal(limit.enough), json_text(limit.matters_for).c_str(),
        limit.enough ? "null" : json_text(limit.raise_to).c_str(),
        limit.enough ? "null" : json_text(limit.command).c_str());
    separator = ",\n";
  }
  std::printf("\n  ]\n}\n");
}

}  // namespace

int main(int argc, char** argv) try {
  const bool json = argc == 2 && std::strcmp(argv[1], "--json") == 0;
  if (argc > 1 && !json) {
    const bool help = std::strcmp(argv[1], "--help") == 0;
    std::fprintf(help ? stdout : stderr, "usage: weir-doctor [--json]\n");
    return help ? 0 : 2;
  }
  weir::logging::set_logger(nullptr);
  const Report report = examine();
  if (json) {
    print_json(report);
  } else {
    print_text(report);
  }
  return report.engine.name.empty() ? 1 : 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "weir-doctor: %s\n", error.what());
  return 1;
}
