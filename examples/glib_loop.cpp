// glib_loop [--port N]: an echo server in GLib's main loop, beside the loop's own timers and
// signals.
#include <weir/weir.h>

#include <glib-unix.h>
#include <glib.h>

#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>
#include <string_view>

using namespace weir;

namespace {

Task<> echo(TcpConnection conn) {
  while (Chunk data = co_await conn.read()) co_await conn.send(std::move(data));
}

/// weir as one more source of a GLib loop.
class InGlib {
 public:
  explicit InGlib(GMainLoop* main) : main_(main) {
    source_ = g_unix_fd_add(loop_.poll_fd(), G_IO_IN, &InGlib::ready, this);
  }
  InGlib(const InGlib&) = delete;
  InGlib& operator=(const InGlib&) = delete;
  ~InGlib() { g_source_remove(source_); }

  EventLoop& loop() { return loop_; }

  /// What GLib's own callbacks gave weir's tasks to do is done: called at the end of each of them.
  void run() {
    if (!loop_.run_ready()) g_main_loop_quit(main_);  // somebody called `stop`
  }

 private:
  static gboolean ready(gint /*fd*/, GIOCondition /*condition*/, gpointer self) {
    static_cast<InGlib*>(self)->run();
    return G_SOURCE_CONTINUE;
  }

  GMainLoop* main_;
  EventLoop loop_;
  guint source_ = 0;
};

struct Program {
  InGlib* weir;
  TcpServer* server;
  bool ending = false;
};

gboolean tick(gpointer data) {
  static_cast<Program*>(data)->server->for_each_connection(
      [](TcpConnection& conn) { conn.sender().try_send("tick\n"); });
  static_cast<Program*>(data)->weir->run();
  return G_SOURCE_CONTINUE;
}

/// Drains, then ends GLib's loop by way of weir's.
gboolean end(gpointer data) {
  Program& program = *static_cast<Program*>(data);
  if (std::exchange(program.ending, true)) return G_SOURCE_CONTINUE;
  EventLoop& loop = program.weir->loop();
  loop.spawn([&loop, &server = *program.server]() -> Task<> {
    const DrainReport report = co_await server.drain(std::chrono::seconds(1));
    std::printf("drained: %zu finished, %zu forced\n", report.finished, report.forced);
    loop.stop();
  });
  program.weir->run();
  return G_SOURCE_CONTINUE;
}

}  // namespace

int main(int argc, char** argv) try {
  const bool with_port = argc == 3 && std::string_view(argv[1]) == "--port";
  if (argc != 1 && !with_port) throw std::invalid_argument("usage: glib_loop [--port N]");
  GMainLoop* main = g_main_loop_new(nullptr, FALSE);
  {
    InGlib weir(main);
    TcpServer server(weir.loop(), {.address = SocketAddress::parse(std::string("127.0.0.1:") +
                                                                   (with_port ? argv[2] : "0"))});
    server.start(echo);
    Program program{&weir, &server};
    const guint ticks = g_timeout_add(100, &tick, &program);
    const guint signal = g_unix_signal_add(SIGTERM, &end, &program);
    std::printf("listening on %s\n", server.address().to_string().c_str());
    std::fflush(stdout);
    weir.run();  // what `start` gave it to do
    g_main_loop_run(main);
    g_source_remove(ticks);
    g_source_remove(signal);
  }
  g_main_loop_unref(main);
} catch (const std::exception& error) {
  std::fprintf(stderr, "glib_loop: %s\n", error.what());
  return 1;
}
