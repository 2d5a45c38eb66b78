// weir-top [--once [--json]] [PID | ADDRESS]: shows what a program that has an inspector does: its
// loops, where its tasks wait and for what, its connections. Exit status 1 if it cannot, 2 if it is
// asked for something else.
#include <weir/core/logging.h>
#include <weir/weir.h>

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "../look/inspector_client.h"
#include "../look/processes.h"
#include "pages.h"
#include "screen.h"

namespace {

using namespace std::chrono_literals;

constexpr const char* kUsage =
    "usage: weir-top [--once [--json]] [PID | ADDRESS]\n"
    "\n"
    "Shows what a program does that has a weir::Inspector, or WEIR_INSPECT in its environment:\n"
    "its loops, where its tasks wait, for what and since when, and its connections.\n"
    "\n"
    "  PID       of the program; without, the only one that has an inspector, or a list of them\n"
    "  ADDRESS   of the inspector: unix:/path, /path, host:port\n"
    "  --once    print it once, as text\n"
    "  --json    the same as JSON\n"
    "\n"
    "Keys: l, t, o, c show one part alone, a all; arrows and pages scroll it; space pauses; q "
    "quits.\n";

struct Arguments {
  bool once = false;
  bool json = false;
  std::string what;
};

/// Throws `std::invalid_argument`.
Arguments parse(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "--once") {
      arguments.once = true;
    } else if (word == "--json") {
      arguments.json = true;
    } else if (word.starts_with('-') || word.empty() || !arguments.what.empty()) {
      throw std::invalid_argument("what is \"" + std::string(word) + "\"?");
    } else {
      arguments.what = word;
    }
  }
  if (arguments.json && !arguments.once) {
    throw std::invalid_argument("--json goes with --once");
  }
  return arguments;
}

top::Target target_of(const look::Process& process) {
  return {std::to_string(process.pid) + ' ' + process.name, process.pid, process.addresses};
}

/// What a PID or an address means.
top::Target target_of(const std::string& what) {
  int pid = 0;
  const auto [end, error] = std::from_chars(what.data(), what.data() + what.size(), pid);
  if (error == std::errc() && end == what.data() + what.size()) {
    return target_of(look::process_with_inspector(pid));
  }
  const std::string address = what.starts_with('/') ? "unix:" + what : what;
  return {address, 0, {address}};
}

void print_list(const std::vector<look::Process>& processes, bool json) {
  look::Json::Items items;
  if (!json) std::printf("    pid  name             inspector\n");
  for (const look::Process& process : processes) {
    const std::string address = process.addresses.empty() ? "" : process.addresses.front();
    if (json) {
      items.push_back(look::Json::Members{{"pid", static_cast<std::uint64_t>(process.pid)},
                                          {"name", process.name},
                                          {"address", address}});
    } else {
      std::printf("%7d  %-15s  %s\n", process.pid, process.name.c_str(), address.c_str());
    }
  }
  if (json) std::fputs(look::Json(std::move(items)).dump().c_str(), stdout);
}

void print(const look::Look& look, const top::Target& target, bool json) {
  if (json) {
    look::Json::Members members;
    members.emplace_back(
        "pid", target.pid != 0 ? look::Json(static_cast<std::uint64_t>(target.pid)) : look::Json());
    std::fputs(top::as_json(look, std::move(members)).dump().c_str(), stdout);
    return;
  }
  constexpr std::size_t kMostRows = 100;
  std::printf("%s: %s\n", target.title.c_str(), look::counts_of(look).text().c_str());
  for (const top::Section& section : top::sections_of(look, nullptr)) {
    std::printf("\n%s\n  %s\n", section.title.c_str(), section.header.c_str());
    const std::size_t shown = std::min(section.rows.size(), kMostRows);
    for (std::size_t i = 0; i < shown; ++i) {
      std::printf("%s %s\n", section.rows[i].is_bad ? "!" : " ", section.rows[i].text.c_str());
    }
    if (shown < section.rows.size()) {
      std::printf("  ... and %zu more\n", section.rows.size() - shown);
    }
  }
}

int run(const Arguments& arguments) {
  top::Target target;
  if (arguments.what.empty()) {
    std::size_t unseen = 0;
    const auto processes = look::processes_with_inspectors(unseen);
    if (processes.empty()) {
      throw std::runtime_error(
          "no process has an inspector" +
          (unseen > 0 ? " but " + std::to_string(unseen) + " of other users: look as root"
                      : ": start one with WEIR_INSPECT=unix:/path in its environment"));
    }
    if (processes.size() > 1) {
      print_list(processes, arguments.json);
      return 0;
    }
    target = target_of(look::process_with_inspector(processes.front().pid));
  } else {
    target = target_of(arguments.what);
  }
  if (arguments.once) {
    print(weir::run(look::look_at_any(target.addresses, 5s)), target, arguments.json);
    return 0;
  }
  if (::isatty(STDIN_FILENO) == 0 || ::isatty(STDOUT_FILENO) == 0) {
    throw std::runtime_error("standard input and output are no terminal: use --once");
  }
  weir::run(top::show(std::move(target), 1s));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::string_view(argv[1]) == "--help") {
    std::fputs(kUsage, stdout);
    return 0;
  }
  std::setlocale(LC_CTYPE, "");
  ::unsetenv("WEIR_INSPECT");  // it is for others
  weir::logging::set_logger(nullptr);
  try {
    return run(parse(argc, argv));
  } catch (const std::invalid_argument& error) {
    std::fprintf(stderr, "weir-top: %s\n%s", error.what(), kUsage);
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "weir-top: %s\n", error.what());
    return 1;
  }
}
