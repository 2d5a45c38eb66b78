// weir-doctor [--json]: says which engine weir uses on this machine and why, what this kernel can
// do, which limits are in a server's way, and which running processes have an inspector. Exit
// status 1 if no event loop can be made.
// weir-doctor [--json] PID: the summary of that process's inspector; 1 if it has none.
#include <weir/core/logging.h>
#include <weir/io/engines.h>

#include <sys/utsname.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "look/inspector_client.h"
#include "look/processes.h"
#include "self_tests.h"
#include "system_limits.h"

namespace {

struct Report {
  std::string kernel;
  weir::detail::EngineChoice engine;
  std::vector<doctor::Capability> capabilities;
  std::vector<doctor::Limit> limits;
  std::vector<look::Process> processes;
  std::size_t unseen = 0;  // processes that have an inspector and are other users'
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
  report.processes = look::processes_with_inspectors(report.unseen);
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

/// Where its inspector answers, as far as one can tell without asking.
std::string address_of(const look::Process& process) {
  return process.addresses.empty() ? "in another network namespace" : process.addresses.front();
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
  std::printf("\ninspectors of running processes\n");
  for (const auto& process : report.processes) {
    const std::string name = std::to_string(process.pid) + ' ' + process.name;
    std::printf("      %-*s", kIndent - 6, name.c_str());
    print_wrapped(address_of(process), kIndent, kIndent);
  }
  if (report.unseen > 0) std::printf("      and %zu of other users\n", report.unseen);
  if (report.processes.empty() && report.unseen == 0) {
    std::printf("      none: WEIR_INSPECT=unix:/path in the environment of one starts one\n");
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
  std::printf("\n  ],\n  \"processes\": [");
  separator = "\n";
  for (const auto& process : report.processes) {
    std::printf("%s    {\"pid\": %d, \"name\": %s, \"inspector\": %s}", separator, process.pid,
                json_text(process.name).c_str(), json_text(address_of(process)).c_str());
    separator = ",\n";
  }
  std::printf("\n  ]\n}\n");
}

/// Throws what is in the way.
void print_process(int pid, bool json) {
  const look::Process process = look::process_with_inspector(pid);
  const look::Look look = weir::run(look::look_at_any(process.addresses, std::chrono::seconds(5)));
  const look::Counts counts = look::counts_of(look);
  if (json) {
    std::printf(
        "{\"pid\": %d, \"name\": %s, \"inspector\": %s, \"loops\": %zu, \"stuck\": %zu, "
        "\"tasks\": %llu, \"connections\": %zu}\n",
        pid, json_text(process.name).c_str(), json_text(look.address).c_str(), counts.loops,
        counts.stuck, static_cast<unsigned long long>(counts.tasks), counts.connections);
    return;
  }
  std::printf("process   %d %s\ninspector %s\n          %s\n", pid, process.name.c_str(),
              look.address.c_str(), counts.text().c_str());
  for (const look::Json& loop : look.loops.items()) {
    std::printf("          %s: %s\n", look::harmless(loop["name"].text()).c_str(),
                loop["state"].text().c_str());
  }
  std::printf("more      weir-top %d\n", pid);
}

}  // namespace

int main(int argc, char** argv) try {
  bool json = false;
  int pid = 0;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), pid);
    if (word == "--json") {
      json = true;
    } else if (error != std::errc() || end != word.data() + word.size()) {
      const bool help = word == "--help";
      std::fprintf(help ? stdout : stderr, "usage: weir-doctor [--json] [PID]\n");
      return help ? 0 : 2;
    }
  }
  weir::logging::set_logger(nullptr);
  ::unsetenv("WEIR_INSPECT");  // it is for others
  if (pid != 0) {
    print_process(pid, json);
    return 0;
  }
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
