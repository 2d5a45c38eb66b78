// curl_get URL...: fetches all of them at once, in one thread.
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "curl.h"

using namespace weir;

namespace {

Task<> fetch(adapters::Curl& curl, std::string url) {
  try {
    const adapters::CurlResponse response = co_await curl.get(url);
    std::printf("%s: %ld, %zu bytes\n", url.c_str(), response.status, response.body.size());
  } catch (const std::runtime_error& error) {
    std::printf("%s: %s\n", url.c_str(), error.what());
  }
}

Task<> fetch_all(std::vector<std::string> urls) {
  adapters::Curl curl;
  std::vector<Task<>> fetches;
  for (std::string& url : urls) fetches.push_back(fetch(curl, std::move(url)));
  co_await when_all(std::move(fetches));
}

}  // namespace

int main(int argc, char** argv) try {
  run(fetch_all({argv + 1, argv + argc}));
} catch (const std::exception& error) {
  std::fprintf(stderr, "curl_get: %s\n", error.what());
  return 1;
}
