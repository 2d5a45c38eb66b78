#include "inspector_client.h"

#include <weir/weir.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <exception>
#include <stdexcept>
#include <system_error>
#include <utility>

namespace look {
namespace {

constexpr std::size_t kMostHead = 16 * 1024;
constexpr std::size_t kMostBody = std::size_t{256} << 20;

[[noreturn]] void fail_as_stranger(const std::string& what) {
  throw std::runtime_error("it is no inspector: " + what);
}

/// The body's length, from the head of an answer (RFC 9112). Throws for any but 200 OK.
std::size_t length_in(std::string_view head) {
  const std::string_view status = head.substr(0, head.find("\r\n"));
  if (!status.starts_with("HTTP/1.1 ")) fail_as_stranger("it does not speak HTTP");
  if (!status.substr(9).starts_with("200")) {
    fail_as_stranger("it answers \"" + std::string(status.substr(9, 60)) + '"');
  }
  std::string lower(head);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  static constexpr std::string_view kField = "\r\ncontent-length:";
  std::size_t length = kMostBody + 1;
  if (const std::size_t at = lower.find(kField); at != std::string::npos) {
    const std::size_t begin = lower.find_first_not_of(' ', at + kField.size());
    if (begin != std::string::npos) {
      std::from_chars(lower.data() + begin, lower.data() + lower.size(), length);
    }
  }
  if (length > kMostBody) fail_as_stranger("its answer has no length that makes sense");
  return length;
}

weir::Task<std::string> fetch(weir::TcpConnection& connection, const std::string& path) {
  std::string request =
      "GET " + path + " HTTP/1.1\r\nHost: weir\r\nAccept: application/json\r\n\r\n";
  co_await connection.send(std::move(request));
  const weir::Chunk head = co_await connection.read_until("\r\n\r\n", kMostHead);
  if (!head) fail_as_stranger("it closed the connection instead of an answer");
  const std::size_t length = length_in(head.view());
  std::string body;
  while (body.size() < length) {
    const weir::Chunk part = co_await connection.read(length - body.size());
    if (!part) fail_as_stranger("it closed the connection within an answer");
    body += part.view();
  }
  co_return body;
}

weir::Task<Json> ask(weir::TcpConnection& connection, std::string path) {
  const std::string body = co_await fetch(connection, path);
  Json answer;
  try {
    answer = Json::parse(body);
  } catch (const std::runtime_error& error) {
    fail_as_stranger(error.what());
  }
  const bool is_of_objects =
      answer.is_array() && std::all_of(answer.items().begin(), answer.items().end(),
                                       [](const Json& item) { return item.is_object(); });
  if (!is_of_objects) fail_as_stranger(path + " is no list");
  co_return answer;
}

/// Lines like `weir_loop_lag_seconds_sum{loop="1",name="main"} 0.25`.
std::map<std::uint64_t, Lag> lags_in(std::string_view metrics) {
  std::map<std::uint64_t, Lag> lags;
  const auto add = [&](std::string_view line, std::string_view begin, double Lag::* to) {
    if (!line.starts_with(begin)) return;
    line.remove_prefix(begin.size());
    std::uint64_t loop = 0;
    double value = 0;
    const char* const end = line.data() + line.size();
    const std::size_t space = line.rfind(' ');
    if (std::from_chars(line.data(), end, loop).ec != std::errc() ||
        space == std::string_view::npos ||
        std::from_chars(line.data() + space + 1, end, value).ec != std::errc()) {
      return;
    }
    lags[loop].*to = value;
  };
  while (!metrics.empty()) {
    const std::string_view line = metrics.substr(0, metrics.find('\n'));
    add(line, "weir_loop_lag_seconds_sum{loop=\"", &Lag::seconds);
    add(line, "weir_loop_lag_seconds_count{loop=\"", &Lag::timers);
    metrics.remove_prefix(std::min(line.size() + 1, metrics.size()));
  }
  return lags;
}

weir::Task<Look> look_without_end(std::string address) {
  weir::TcpConnection connection = co_await weir::connect(address);
  Look look{std::move(address), {}, {}, {}, {}, {}};
  look.loops = co_await ask(connection, "/loops");
  look.tasks = co_await ask(connection, "/tasks");
  look.connections = co_await ask(connection, "/connections");
  const std::string metrics = co_await fetch(connection, "/metrics");
  look.lags = lags_in(metrics);
  look.when = weir::EventLoop::current().now();
  connection.force_close();  // it has said all
  co_return look;
}

std::string told(const std::string& address, std::chrono::milliseconds patience,
                 const std::system_error& error) {
  if (error.code() == std::errc::timed_out) {
    return "nobody answers at " + address + " within " + std::to_string(patience.count()) + " ms";
  }
  if (error.code() == std::errc::permission_denied) {
    return "nobody but its owner may use " + address;
  }
  return "nobody answers at " + address + ": " + error.code().message();
}

}  // namespace

bool is_stuck(const Json& loop) { return loop["state"].text() == "STUCK"; }

Counts counts_of(const Look& look) {
  Counts counts;
  for (const Json& loop : look.loops.items()) {
    ++counts.loops;
    if (is_stuck(loop)) ++counts.stuck;
    counts.tasks += loop["tasks"].number();
  }
  counts.connections = look.connections.items().size();
  return counts;
}

std::string Counts::text() const {
  const auto count = [](std::uint64_t number, const char* what) {
    return std::to_string(number) + ' ' + what + (number == 1 ? "" : "s");
  };
  return count(loops, "loop") + (stuck > 0 ? ", " + std::to_string(stuck) + " of them STUCK" : "") +
         "; " + count(tasks, "task") + "; " + count(connections, "connection");
}

weir::Task<Look> look_at(std::string address, std::chrono::milliseconds patience) {
  try {
    auto look = look_without_end(address);
    co_return co_await weir::timeout(patience, std::move(look));
  } catch (const std::system_error& error) {
    if (error.code() == std::errc::message_size) {
      throw std::runtime_error("at " + address + " it is no inspector: it does not speak HTTP");
    }
    throw std::runtime_error(told(address, patience, error));
  } catch (const std::runtime_error& error) {
    throw std::runtime_error("at " + address + ' ' + error.what());
  } catch (const std::invalid_argument& error) {
    throw std::runtime_error(error.what());
  }
}

weir::Task<Look> look_at_any(std::vector<std::string> addresses,
                             std::chrono::milliseconds patience) {
  std::exception_ptr failure;
  if (addresses.size() > 1) patience = std::min(patience, std::chrono::milliseconds(1000));
  for (const std::string& address : addresses) {
    try {
      co_return co_await look_at(address, patience);
    } catch (const std::runtime_error&) {
      failure = std::current_exception();
    }
  }
  if (failure == nullptr) throw std::runtime_error("there is no address to look at");
  std::rethrow_exception(failure);
}

}  // namespace look
