#pragma once

#include <weir/weir.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace http {

struct BackendOptions {
  std::vector<std::string> addresses;         // HOST:PORT
  std::size_t max_connections;                // to each of them, on each loop
  std::chrono::milliseconds connect_timeout;  // waiting for one of those included
};

/// Throws for what is no address; whether a name has one is seen when it is connected to.
inline std::vector<std::string> parse_backends(std::string_view list) {
  std::vector<std::string> backends;
  while (!list.empty()) {
    const std::size_t comma = std::min(list.find(','), list.size());
    const std::string_view address = list.substr(0, comma);
    list.remove_prefix(std::min(comma + 1, list.size()));
    const std::size_t colon = std::min(address.rfind(':'), address.size());
    unsigned port = 0;
    const char* end = address.data() + address.size();
    const auto [stop, error] =
        std::from_chars(address.data() + std::min(colon + 1, address.size()), end, port);
    const bool sound = error == std::errc() && stop == end && port <= 65535 && colon > 0;
    if (!sound && !address.starts_with("unix:")) {
      throw std::invalid_argument("--backends has '" + std::string(address) +
                                  "'; it must be HOST:PORT");
    }
    backends.emplace_back(address);
  }
  if (backends.empty()) throw std::invalid_argument("--backends is missing");
  return backends;
}

/// One for each loop.
class Backends {
 public:
  /// Throws `std::invalid_argument` for a bad option.
  explicit Backends(const BackendOptions& given) : timeout_(given.connect_timeout) {
    for (const std::string& address : given.addresses) {
      weir::ConnectionPoolOptions options;
      options.address = address;
      options.max_connections = given.max_connections;
      pools_.push_back(std::make_unique<weir::ConnectionPool>(std::move(options)));
    }
  }

  /// From the next in turn that can be reached; throws what the last one threw.
  weir::Task<weir::ConnectionPool::Lease> acquire() {
    std::error_code failure;
    for (std::size_t tries = 0; tries < pools_.size(); ++tries) {
      weir::ConnectionPool& pool = *pools_[turn_++ % pools_.size()];
      auto [error, lease] = co_await weir::as_tuple(weir::timeout(timeout_, pool.acquire()));
      if (!error) co_return std::move(lease);
      failure = error;
    }
    throw std::system_error(failure, "no backend");
  }

 private:
  std::chrono::milliseconds timeout_;
  std::vector<std::unique_ptr<weir::ConnectionPool>> pools_;
  std::size_t turn_ = 0;
};

}  // namespace http
