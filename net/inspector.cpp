#include <weir/core/all_loops.h>
#include <weir/core/log_line.h>
#include <weir/core/loop_thread.h>
#include <weir/core/readiness.h>
#include <weir/core/sleep.h>
#include <weir/coro/as_tuple.h>
#include <weir/coro/task_group.h>
#include <weir/io/handover.h>
#include <weir/io/unclaimed_signal.h>
#include <weir/net/inspect/debugger.h>
#include <weir/net/inspect/log.h>
#include <weir/net/inspect/render.h>
#include <weir/net/inspect/servers.h>
#include <weir/net/inspect/snapshot.h>
#include <weir/net/inspector.h>
#include <weir/net/tcp_server.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace weir {
namespace {

using detail::Snapshot;
using detail::Surveyor;

constexpr std::size_t kMostHead = 8192;
/// Between two tries to get an address that a predecessor has.
constexpr auto kRetry = 200ms;

struct Resource {
  std::string_view path;
  detail::Wanted wanted;
  bool servers;
  const char* type;
  std::string (*as_text)(const Snapshot&);
  std::string (*as_json)(const Snapshot&);  // nullptr: there is one form alone
};

constexpr const char* kText = "text/plain; charset=utf-8";

constexpr Resource kResources[] = {
    {"/tasks", {true, true}, false, kText, detail::tasks_as_text, detail::tasks_as_json},
    {"/connections",
     {false, true},
     false,
     kText,
     detail::connections_as_text,
     detail::connections_as_json},
    {"/events", {false, false, true}, false, kText, detail::events_as_text, detail::events_as_json},
    {"/loops", {true, true}, false, kText, detail::loops_as_text, detail::loops_as_json},
    {"/metrics",
     {},
     true,
     "text/plain; version=0.0.4; charset=utf-8",
     detail::metrics_as_text,
     nullptr},
    {"/", {true, true}, false, "text/html; charset=utf-8", detail::page_as_html, nullptr},
};

/// What is asked for, of a request's head; no more of HTTP than that takes.
struct Request {
  std::string_view method;
  std::string_view path;  // without a query
  bool is_valid = false;
  bool accepts_json = false;
  bool keeps_alive = true;
  bool has_body = false;
};

bool equal_but_for_case(std::string_view a, std::string_view b) noexcept {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](unsigned char x, unsigned char y) {
    return std::tolower(x) == std::tolower(y);
  });
}

std::string_view take_line(std::string_view& text) noexcept {
  const std::size_t end = text.find("\r\n");
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 2);
  return line;
}

Request parse(std::string_view head) noexcept {
  Request request;
  const std::string_view line = take_line(head);
  const std::size_t space = line.find(' ');
  const std::size_t second = space == std::string_view::npos ? space : line.find(' ', space + 1);
  if (second == std::string_view::npos) return request;
  request.method = line.substr(0, space);
  request.path = line.substr(space + 1, second - space - 1);
  request.path = request.path.substr(0, request.path.find('?'));
  const std::string_view version = line.substr(second + 1);
  request.is_valid = version == "HTTP/1.1" || version == "HTTP/1.0";
  request.keeps_alive = version == "HTTP/1.1";
  while (!head.empty()) {
    const std::string_view field = take_line(head);
    const std::size_t colon = field.find(':');
    if (colon == std::string_view::npos) continue;
    const std::string_view name = field.substr(0, colon);
    const std::string_view value = field.substr(colon + 1);
    if (equal_but_for_case(name, "accept")) {
      request.accepts_json = value.find("application/json") != std::string_view::npos;
    } else if (equal_but_for_case(name, "connection")) {
      if (value.find("close") != std::string_view::npos) request.keeps_alive = false;
    } else if (equal_but_for_case(name, "content-length") ||
               equal_but_for_case(name, "transfer-encoding")) {
      request.has_body = true;
    }
  }
  return request;
}

std::string answer(const char* status, const char* type, const std::string& body, bool close) {
  return std::string("HTTP/1.1 ") + status + "\r\nContent-Type: " + type +
         "\r\nContent-Length: " + std::to_string(body.size()) + "\r\nCache-Control: no-store\r\n" +
         (close ? "Connection: close\r\n" : "") + "\r\n" + body;
}

/// A request's answer; the connection is to be closed behind it if `request` does not keep it.
Task<std::string> respond(Request& request, Surveyor& surveyor) {
  const auto refuse = [&](const char* status) {
    request.keeps_alive = false;
    return answer(status, kText, std::string(status) + '\n', true);
  };
  if (!request.is_valid) co_return refuse("400 Bad Request");
  if (request.has_body) co_return refuse("413 Content Too Large");  // nobody reads it
  if (request.method != "GET") co_return refuse("405 Method Not Allowed");
  for (const Resource& resource : kResources) {
    if (resource.path != request.path) continue;
    const bool json = request.accepts_json && resource.as_json != nullptr;
    const Snapshot snapshot = co_await surveyor.look(resource.wanted, resource.servers);
    const std::string body = json ? resource.as_json(snapshot) : resource.as_text(snapshot);
    co_return answer("200 OK", json ? "application/json" : resource.type, body,
                     !request.keeps_alive);
  }
  const std::string body = "there are /tasks, /connections, /loops, /events, /metrics and /\n";
  co_return answer("404 Not Found", kText, body, !request.keeps_alive);
}

Task<> serve(TcpConnection connection, Surveyor& surveyor) {
  for (;;) {
    auto [error, head] = co_await as_tuple(connection.read_until("\r\n\r\n", kMostHead));
    if (error || !head) co_return;
    Request request = parse(head.view());
    std::string text = co_await respond(request, surveyor);
    co_await connection.send(std::move(text));
    if (!request.keeps_alive) co_return;
  }
}

ServerOptions server_options(const SocketAddress& address) {
  ServerOptions options;
  options.address = address;
  options.name = "inspector";
  options.max_connections = 16;
  options.idle_timeout = 10s;
  options.write_timeout = 10s;
  options.unix_mode = 0600;
  options.inherit_listeners = false;
  return options;
}

LoopOptions loop_options() {
  LoopOptions options;
  options.ring_entries = 16;
  options.buffer_count = 64;
  options.name = "weir-inspect";
  options.stall = std::chrono::milliseconds(0);  // it waits for the log, and holds nobody up
  return options;
}

}  // namespace

struct Inspector::Parts {
  explicit Parts(const SocketAddress& address)
      : thread(loop_options()), server(thread.loop(), server_options(address)) {
    detail::AllLoops::instance().hide(thread.loop());
    detail::AllServers::instance().hide(server);
    bool has_started = true;
    try {
      start();
    } catch (const std::system_error& error) {
      if (error.code() != std::errc::address_in_use || !detail::has_predecessor()) throw;
      has_started = false;
    }
    thread.loop().call([&] { begin_tasks(has_started); });
  }
  Parts(const Parts&) = delete;
  Parts& operator=(const Parts&) = delete;
  ~Parts() {
    thread.loop().call([this] { end_tasks(); });
  }

  /// On the thread.
  void begin_tasks(bool has_started) {
    try {
      tasks.emplace();
      if (!has_started) tasks->spawn(start_later());
      if (&thread.loop().machine() != &detail::process_machine()) return;
      quit.emplace(SIGQUIT);
      if (quit->fd() >= 0) tasks->spawn(log_when_asked());
    } catch (...) {
      end_tasks();
      throw;
    }
  }
  void end_tasks() noexcept {
    tasks.reset();
    quit.reset();
  }

  void start() {
    server.start(
        [this](TcpConnection connection) { return serve(std::move(connection), surveyor); });
  }

  /// As soon as the predecessor lets go of the address.
  Task<> start_later() {
    for (;;) {
      co_await sleep(kRetry);
      try {
        start();
        co_return;
      } catch (const std::system_error& error) {
        if (error.code() != std::errc::address_in_use) throw;
      }
    }
  }

  /// For each SIGQUIT, but for those that come while the last one is answered.
  Task<> log_when_asked() {
    for (;;) {
      co_await readable(quit->fd());
      if (!quit->take()) continue;
      auto [error, snapshot] = co_await as_tuple(surveyor.look({true, true, true}, false));
      try {
        if (!error) detail::log_snapshot(snapshot);
      } catch (...) {
        error = std::make_error_code(std::errc::not_enough_memory);
      }
      if (error) logging::write(logging::Level::error, "SIGQUIT: the loops cannot be looked at");
    }
  }

  Surveyor surveyor;
  EventLoopThread thread;
  TcpServer server;
  std::optional<detail::UnclaimedSignal> quit;
  std::optional<TaskGroup> tasks;
};

Inspector::Inspector(InspectorOptions options) {
  if (!options.address) {
    throw std::invalid_argument("weir: InspectorOptions::address is empty");
  }
  parts_ = std::make_unique<Parts>(options.address);
}

Inspector::~Inspector() = default;

SocketAddress Inspector::address() const {
  SocketAddress address;
  parts_->thread.loop().call([&] { address = parts_->server.address(); });
  return address;
}

void detail::inspect_if_asked() noexcept {
  // Not waited for by others: one of them is the inspector's own loop.
  static constinit std::atomic<bool> looked{false};
  if (looked.load(std::memory_order_relaxed) || looked.exchange(true)) return;
  keep_for_debuggers();
  const char* wanted = std::getenv("WEIR_INSPECT");
  if (wanted == nullptr || *wanted == '\0') return;
  try {
    // Never destroyed: its thread may serve while `main` has returned.
    // What nobody reads the compiler leaves out, and who looks for leaks would find one.
    [[gnu::used, maybe_unused]] static Inspector* inspector = nullptr;
    inspector = new Inspector({.address = SocketAddress::parse(wanted)});
  } catch (...) {
    const auto what = LogLine() << "WEIR_INSPECT=" << std::string_view(wanted)
                                << " starts no inspector";
    write_failure(logging::Level::error, what, std::current_exception());
  }
}

}  // namespace weir
