#pragma once

#include <doctest/doctest.h>
#include <pwd.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "../support/child.h"
#include "../support/directory.h"
#include "../support/net_server.h"

/// Services that others wrote, each in a directory of its own and on no port that anybody chose.
namespace weir::test {

/// Where a service's program stands: on the search path, or where Debian keeps those that are not
/// for everybody. Empty, with the reason printed, where it does not.
inline std::string service_program(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::istringstream directories(std::string(path == nullptr ? "/usr/bin:/bin" : path) +
                                 ":/usr/sbin");
  for (std::string directory; std::getline(directories, directory, ':');) {
    std::string file = directory + '/' + name;
    if (::access(file.c_str(), X_OK) == 0) return file;
  }
  std::set<std::string> versions;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator("/usr/lib/postgresql", none)) {
    const std::string file = entry.path() / "bin" / name;
    if (::access(file.c_str(), X_OK) == 0) versions.insert(file);
  }
  if (!versions.empty()) return *versions.rbegin();
  MESSAGE("skipped: " << name << " is not installed");
  return {};
}

/// One of them, which ends with this, or with the thread that started it.
class Service {
 public:
  /// `signal` ends it in an orderly way. As `user`, if the test is root.
  Service(std::string program, std::vector<std::string> arguments, int signal = SIGTERM,
          const std::string& user = {})
      : Service(command(std::move(program), std::move(arguments), signal, user), signal) {}
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;
  ~Service() {
    if (child_.process() <= 0) return;
    child_.signal(signal_);
    child_.wait();
  }

  /// For one that ends by itself: its exit status.
  int wait() { return child_.wait(); }

  /// Reads its output up to a line with this text.
  void wait_for_line(std::string_view text) {
    std::string said;
    for (;;) {
      const std::string line = child_.read_line();
      if (line.find(text) != std::string::npos) return;
      said += line + '\n';
      INFO("it said: " << said);
      REQUIRE(said.find("\n\n\n") == std::string::npos);  // nothing more
    }
  }
  void wait_for_listener(const SocketAddress& address) {
    REQUIRE(eventually([&] {
      try {
        (void)Peer::connect(address);
        return true;
      } catch (const std::system_error&) {
        return false;
      }
    }));
  }

 private:
  using Command = std::pair<std::string, std::vector<std::string>>;

  Service(Command command, int signal)
      : child_(std::move(command.first), std::move(command.second)), signal_(signal) {}

  static Command command(std::string program, std::vector<std::string> arguments, int signal,
                         const std::string& user) {
    std::vector<std::string> all = {"--pdeathsig", ::sigabbrev_np(signal)};
    if (!user.empty() && ::geteuid() == 0) {
      all.insert(all.end(), {"--reuid", user, "--regid", user, "--clear-groups"});
    }
    all.insert(all.end(), {"--", std::move(program)});
    all.insert(all.end(), arguments.begin(), arguments.end());
    return {"/usr/bin/setpriv", std::move(all)};
  }

  Child child_;
  int signal_;
};

}  // namespace weir::test
