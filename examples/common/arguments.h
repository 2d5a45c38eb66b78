#pragma once

#include <weir/weir.h>

#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

/// A server's command line: `--port`, `--address`, `--threads`, `--engine`, `--tls-certificate` and
/// `--tls-key`, and options of its own, each with a default. `--name value` and `--name=value`.
class Arguments {
 public:
  /// Throws `std::invalid_argument` that says what is wrong.
  Arguments(int argc, char** argv, const std::map<std::string, std::string>& own = {}) {
    values_.insert(own.begin(), own.end());
    for (int i = 1; i < argc; ++i) {
      std::string name = argv[i];
      if (!name.starts_with("--")) {
        throw std::invalid_argument("'" + name + "' is no option; " + known());
      }
      name.erase(0, 2);
      std::string value;
      if (const std::size_t equals = name.find('='); equals != std::string::npos) {
        value = name.substr(equals + 1);
        name.resize(equals);
      } else if (i + 1 < argc) {
        value = argv[++i];
      } else {
        throw std::invalid_argument("--" + name + " needs a value; " + known());
      }
      const auto found = values_.find(name);
      if (found == values_.end()) {
        throw std::invalid_argument("there is no option --" + name + "; " + known());
      }
      found->second = value;
    }
  }

  [[nodiscard]] const std::string& text(const std::string& name) const { return values_.at(name); }

  [[nodiscard]] std::size_t number(const std::string& name) const {
    const std::string& value = text(name);
    std::size_t number = 0;
    const char* end = value.data() + value.size();
    const auto [stop, error] = std::from_chars(value.data(), end, number);
    if (error != std::errc() || stop != end) {
      throw std::invalid_argument("--" + name + " is '" + value + "'; it must be a number");
    }
    return number;
  }

  /// An option given in milliseconds, a day at the most.
  [[nodiscard]] std::chrono::milliseconds milliseconds(const std::string& name) const {
    const std::size_t count = number(name);
    if (count == 0 || count > 86'400'000) {
      throw std::invalid_argument("--" + name + " is " + text(name) +
                                  "; it must be 1 to 86400000 milliseconds");
    }
    return std::chrono::milliseconds(count);
  }

  [[nodiscard]] weir::ServerOptions server_options(std::string name) const {
    static const std::map<std::string, weir::Engine> engines = {{"auto", weir::Engine::automatic},
                                                                {"uring", weir::Engine::uring},
                                                                {"epoll", weir::Engine::epoll}};
    const auto engine = engines.find(text("engine"));
    if (engine == engines.end()) {
      throw std::invalid_argument("--engine is '" + text("engine") +
                                  "'; it must be auto, uring or epoll");
    }
    if (text("port").empty()) throw std::invalid_argument("--port is missing; 0 takes any");
    std::string host = text("address");
    if (host.find(':') != std::string::npos && host.front() != '[') host = '[' + host + ']';
    weir::ServerOptions options;
    options.address = weir::SocketAddress::parse(host + ':' + text("port"));
    options.name = std::move(name);
    options.threads = number("threads");
    options.loop.engine = engine->second;
    return options;
  }

 private:
  [[nodiscard]] std::string known() const {
    std::string text = "known are";
    for (const auto& [name, value] : values_) text += " --" + name;
    return text;
  }

  std::map<std::string, std::string> values_ = {
      {"port", ""},       {"address", "127.0.0.1"}, {"threads", "1"},
      {"engine", "auto"}, {"tls-certificate", ""},  {"tls-key", ""}};
};

/// Runs the server until SIGINT or SIGTERM. Says where it listens in the loop's first turn: whoever
/// reads that may signal at once.
inline void serve(weir::TcpServer& server, weir::TcpServer::Handler handler) {
  server.listen();
  server.loop().post([&server] {
    std::printf("listening on %s\n", server.address().to_string().c_str());
    std::fflush(stdout);
  });
  server.run(std::move(handler));
}
