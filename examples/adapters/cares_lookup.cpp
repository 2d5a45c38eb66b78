// cares_lookup [--servers ADDRESS:PORT,...] NAME...: the addresses of all of them, asked for at
// once.
#include <cstdio>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

#include "cares.h"

using namespace weir;

namespace {

Task<> look_up(adapters::Cares& cares, std::string name) {
  std::string text = name + ':';
  try {
    const std::vector<SocketAddress> addresses = co_await cares.resolve(name, 0);
    for (const SocketAddress& address : addresses) text += ' ' + address.to_string();
  } catch (const std::runtime_error& error) {
    text += std::string(" ") + error.what();
  }
  std::puts(text.c_str());
}

Task<> look_up_all(adapters::CaresOptions options, std::vector<std::string> names) {
  adapters::Cares cares(options);
  std::vector<Task<>> lookups;
  for (std::string& name : names) lookups.push_back(look_up(cares, std::move(name)));
  co_await when_all(std::move(lookups));
}

}  // namespace

int main(int argc, char** argv) try {
  adapters::CaresOptions options;
  const bool with_servers = argc > 2 && std::string_view(argv[1]) == "--servers";
  if (with_servers) options.servers = argv[2];
  run(look_up_all(options, {argv + (with_servers ? 3 : 1), argv + argc}));
} catch (const std::exception& error) {
  std::fprintf(stderr, "cares_lookup: %s\n", error.what());
  return 1;
}
