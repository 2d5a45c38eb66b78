#pragma once

#include <weir/weir.h>

#include <nghttp2/nghttp2.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

/// HTTP/2 (RFC 9113) by nghttp2 over weir's connections, the server's side.
namespace adapters {

struct Http2Message {
  std::map<std::string, std::string> headers;  // ":path" …, ":status"; names in lower case
  std::string body;
};
/// Called for each request, many at a time; dropped when its stream is reset.
using Http2Handler = std::function<weir::Task<Http2Message>(Http2Message request)>;

class Http2Session {
 public:
  static constexpr std::size_t kMostBody = 1 << 20;  // of a request: more ends the connection

  Http2Session(weir::TcpConnection& conn, const Http2Handler& h) : conn_(conn), handler_(h) {
    nghttp2_session_callbacks* on = nullptr;
    nghttp2_session_callbacks_new(&on);
    nghttp2_session_callbacks_set_on_header_callback(
        on, [](auto*, auto* frame, auto* name, auto n, auto* value, auto v, auto, void* self) {
          auto& headers = at(self).streams_[frame->hd.stream_id].message.headers;
          headers.emplace(std::string(name, name + n), std::string(value, value + v));
          return 0;
        });
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
        on, [](auto*, auto, auto id, auto* data, auto size, void* self) {
          const auto& body = at(self).streams_[id].message.body.append(data, data + size);
          return body.size() <= kMostBody ? 0 : int{NGHTTP2_ERR_CALLBACK_FAILURE};
        });
    nghttp2_session_callbacks_set_on_frame_recv_callback(on, [](auto*, auto* frame, void* self) {
      const bool message = frame->hd.type <= NGHTTP2_HEADERS;  // or DATA
      if (message && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0)
        at(self).begin(frame->hd.stream_id);
      return 0;
    });
    nghttp2_session_callbacks_set_on_stream_close_callback(
        on, [](auto*, auto id, auto, void* self) { return at(self).streams_.erase(id), 0; });
    nghttp2_session_server_new(&session_, on, this);
    nghttp2_session_callbacks_del(on);
    const nghttp2_settings_entry most = {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 128};
    nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, &most, 1);
    drain_.spawn([this]() -> weir::Task<> {
      co_await conn_.draining();
      const int last = nghttp2_session_get_last_proc_stream_id(session_);
      nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE, last, NGHTTP2_NO_ERROR, nullptr, 0);
      changed_.set();
    });
  }
  ~Http2Session() { nghttp2_session_del(session_); }
  /// Until either side has ended it; when the server drains, requests that came are answered.
  weir::Task<> run() { co_await weir::when_any(read(), write()); }

 private:
  struct Stream {
    Http2Message message;  // the request, then the response
    std::size_t sent = 0;
    weir::TaskGroup answering;
  };
  static Http2Session& at(void* self) { return *static_cast<Http2Session*>(self); }
  void begin(int id) { streams_[id].answering.spawn(answer(id, streams_[id])); }
  weir::Task<> read() {
    while (weir::Chunk chunk = co_await conn_.read()) {
      const auto* data = reinterpret_cast<const unsigned char*>(chunk.data());
      if (nghttp2_session_mem_recv(session_, data, chunk.size()) < 0) co_return;
      changed_.set();
    }
  }
  weir::Task<> write() {
    while ((nghttp2_session_want_read(session_) | nghttp2_session_want_write(session_)) != 0) {
      std::string out;
      const unsigned char* data = nullptr;
      ssize_t size = 0;
      while (out.size() < 65'536 && (size = nghttp2_session_mem_send(session_, &data)) > 0)
        out.append(data, data + size);
      if (out.empty()) co_await changed_.wait();
      changed_.reset();
      co_await conn_.send(std::move(out));
    }
  }
  weir::Task<> answer(int id, Stream& stream) {
    try {
      stream.message = co_await handler_(std::move(stream.message));
    } catch (const std::exception&) {
      stream.message = {{{":status", "500"}}, {}};
    }
    std::vector<nghttp2_nv> headers;  // in order: ':' sorts before letters
    for (const auto& [name, value] : stream.message.headers)
      headers.push_back({bytes_of(name), bytes_of(value), name.size(), value.size(), 0});
    const nghttp2_data_provider body{
        {.ptr = &stream}, [](auto*, auto, auto* into, auto most, auto* flags, auto* from, void*) {
          auto& [message, sent, answering] = *static_cast<Stream*>(from->ptr);
          const auto size = message.body.copy(reinterpret_cast<char*>(into), most, sent);
          if ((sent += size) == message.body.size()) *flags |= NGHTTP2_DATA_FLAG_EOF;
          return static_cast<ssize_t>(size);
        }};
    nghttp2_submit_response(session_, id, headers.data(), headers.size(), &body);
    changed_.set();
  }
  static unsigned char* bytes_of(const std::string& text) {
    return reinterpret_cast<unsigned char*>(const_cast<char*>(text.data()));
  }
  weir::TcpConnection& conn_;
  const Http2Handler& handler_;
  nghttp2_session* session_ = nullptr;
  std::map<int, Stream> streams_;
  weir::Event changed_;
  weir::TaskGroup drain_;
};

}  // namespace adapters
