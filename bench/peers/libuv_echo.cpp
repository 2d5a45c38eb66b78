// Echo on libuv. A peer that does not read is not read from. With LIBUV_TUNED as those write it who
// know it well: one buffer for all reads, what came is written at once, and only what the kernel
// does not take is copied and queued.
#include <uv.h>

#include <csignal>
#include <cstring>

#include "options.h"

namespace {

constexpr std::size_t kMostQueued = 1 << 20;

std::size_t buffer_size;

struct Write {
  uv_write_t request;
  char* data;
};

void allocate(uv_handle_t*, std::size_t, uv_buf_t* buffer) {
#ifdef LIBUV_TUNED
  static char* const shared = new char[buffer_size];
  *buffer = uv_buf_init(shared, static_cast<unsigned>(buffer_size));
#else
  *buffer = uv_buf_init(new char[buffer_size], static_cast<unsigned>(buffer_size));
#endif
}

void release(const uv_buf_t* buffer) {
#ifdef LIBUV_TUNED
  (void)buffer;
#else
  delete[] buffer->base;
#endif
}

/// What is to be queued of what came: an owner of the bytes, or nothing.
char* left_to_write(uv_stream_t* stream, const uv_buf_t* buffer, std::size_t& size) {
#ifdef LIBUV_TUNED
  const uv_buf_t data = uv_buf_init(buffer->base, static_cast<unsigned>(size));
  const int written = uv_try_write(stream, &data, 1);
  const std::size_t gone = written > 0 ? static_cast<std::size_t>(written) : 0;
  if (gone == size) return nullptr;
  size -= gone;
  char* copy = new char[size];
  std::memcpy(copy, buffer->base + gone, size);
  return copy;
#else
  (void)stream, (void)size;
  return buffer->base;
#endif
}

void close_connection(uv_handle_t* handle) {
  if (uv_is_closing(handle) != 0) return;
  uv_close(handle, [](uv_handle_t* closed) { delete reinterpret_cast<uv_tcp_t*>(closed); });
}

void on_read(uv_stream_t* stream, ssize_t size, const uv_buf_t* buffer);

void on_written(uv_write_t* request, int status) {
  auto* write = reinterpret_cast<Write*>(request);
  uv_stream_t* stream = request->handle;
  delete[] write->data;
  delete write;
  if (status < 0) return close_connection(reinterpret_cast<uv_handle_t*>(stream));
  if (uv_stream_get_write_queue_size(stream) == 0) uv_read_start(stream, allocate, on_read);
}

void on_read(uv_stream_t* stream, ssize_t size, const uv_buf_t* buffer) {
  if (size <= 0) {
    release(buffer);
    if (size < 0) close_connection(reinterpret_cast<uv_handle_t*>(stream));
    return;
  }
  std::size_t left = static_cast<std::size_t>(size);
  char* bytes = left_to_write(stream, buffer, left);
  if (bytes == nullptr) return;
  auto* write = new Write{.request = {}, .data = bytes};
  const uv_buf_t data = uv_buf_init(bytes, static_cast<unsigned>(left));
  uv_write(&write->request, stream, &data, 1, on_written);
  if (uv_stream_get_write_queue_size(stream) > kMostQueued) uv_read_stop(stream);
}

void on_connection(uv_stream_t* listener, int status) {
  if (status < 0) return;
  auto* client = new uv_tcp_t;
  uv_tcp_init(listener->loop, client);
  auto* stream = reinterpret_cast<uv_stream_t*>(client);
  if (uv_accept(listener, stream) != 0) {
    return close_connection(reinterpret_cast<uv_handle_t*>(client));
  }
  uv_tcp_nodelay(client, 1);
  uv_read_start(stream, allocate, on_read);
}

}  // namespace

int main(int argc, char** argv) {
  const peers::Options options = peers::parse_options(argc, argv);
  buffer_size = options.buffer;
  std::signal(SIGPIPE, SIG_IGN);
  uv_loop_t* loop = uv_default_loop();

  uv_signal_t terminate;
  uv_signal_init(loop, &terminate);
  uv_signal_start(&terminate, [](uv_signal_t* handle, int) { uv_stop(handle->loop); }, SIGTERM);

  uv_tcp_t listener;
  uv_tcp_init(loop, &listener);
  sockaddr_in address;
  uv_ip4_addr("127.0.0.1", options.port, &address);
  uv_tcp_bind(&listener, reinterpret_cast<const sockaddr*>(&address), 0);
  const int error = uv_listen(reinterpret_cast<uv_stream_t*>(&listener), 4096, on_connection);
  if (error != 0) {
    std::fprintf(stderr, "%s: listen: %s\n", argv[0], uv_strerror(error));
    return 1;
  }
  int length = sizeof address;
  uv_tcp_getsockname(&listener, reinterpret_cast<sockaddr*>(&address), &length);
  peers::announce(ntohs(address.sin_port));
  uv_run(loop, UV_RUN_DEFAULT);
}
