#pragma once

#include <curl/curl.h>

#include <chrono>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "watched.h"

/// libcurl's transfers on weir's loop, any number at a time and no thread for any: its multi
/// interface, curl_multi_socket_action(3).
namespace adapters {

using CurlHandle = std::unique_ptr<CURL, decltype(&curl_easy_cleanup)>;

struct CurlResponse {
  long status = 0;
  std::string body;
};

/// Connections, and names resolved, that transfers share. Belongs to one loop; outlives them.
class Curl {
 public:
  Curl() : multi_(curl_multi_init(), &curl_multi_cleanup) {
    if (multi_ == nullptr) throw std::runtime_error("curl_multi_init");
    curl_multi_setopt(multi_.get(), CURLMOPT_SOCKETFUNCTION, &Curl::on_socket);
    curl_multi_setopt(multi_.get(), CURLMOPT_SOCKETDATA, this);
    curl_multi_setopt(multi_.get(), CURLMOPT_TIMERFUNCTION, &Curl::on_timer);
    curl_multi_setopt(multi_.get(), CURLMOPT_TIMERDATA, this);
  }

  CURLM* multi() { return multi_.get(); }

  /// The whole transfer, as `curl_easy_perform`; its CURLOPT_PRIVATE is taken. Dropping it ends the
  /// transfer, and its connection where that is in the middle of it. Throws `std::runtime_error`.
  weir::Task<> perform(CURL* easy) {
    Transfer transfer{multi_.get(), easy};
    curl_easy_setopt(easy, CURLOPT_PRIVATE, &transfer);
    if (const CURLMcode bad = curl_multi_add_handle(multi_.get(), easy); bad != CURLM_OK) {
      throw std::runtime_error(curl_multi_strerror(bad));
    }
    co_await transfer.done.wait();
    if (transfer.result != CURLE_OK) throw std::runtime_error(curl_easy_strerror(transfer.result));
  }

  /// Fetches what is there, after `prepare` has set options of its own.
  weir::Task<CurlResponse> get(std::string url, std::function<void(CURL*)> prepare = {}) {
    const CurlHandle easy(curl_easy_init(), &curl_easy_cleanup);
    if (easy == nullptr) throw std::runtime_error("curl_easy_init");
    CurlResponse response;
    curl_easy_setopt(easy.get(), CURLOPT_URL, url.c_str());
    curl_easy_setopt(easy.get(), CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy.get(), CURLOPT_WRITEFUNCTION, &Curl::on_body);
    curl_easy_setopt(easy.get(), CURLOPT_WRITEDATA, &response.body);
    if (prepare) prepare(easy.get());
    co_await perform(easy.get());
    curl_easy_getinfo(easy.get(), CURLINFO_RESPONSE_CODE, &response.status);
    co_return response;
  }

 private:
  struct Transfer {
    CURLM* multi;
    CURL* easy;
    weir::Event done = {};
    CURLcode result = CURLE_OK;
    ~Transfer() { curl_multi_remove_handle(multi, easy); }
  };

  static int on_socket(CURL* /*easy*/, curl_socket_t fd, int what, void* self, void* /*socket*/) {
    int events = 0;
    if (what == CURL_POLL_IN || what == CURL_POLL_INOUT) events |= POLLIN;
    if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT) events |= POLLOUT;
    static_cast<Curl*>(self)->watched_.watch(fd, events);
    return 0;
  }
  static int on_timer(CURLM* /*multi*/, long milliseconds, void* self) {
    static_cast<Curl*>(self)->watched_.wake_in(std::chrono::milliseconds(milliseconds));
    return 0;
  }
  static std::size_t on_body(char* data, std::size_t size, std::size_t count, void* body) {
    static_cast<std::string*>(body)->append(data, size * count);
    return size * count;
  }

  void act(curl_socket_t fd, int events) {
    int running = 0;
    curl_multi_socket_action(multi_.get(), fd, events, &running);
    while (const CURLMsg* message = curl_multi_info_read(multi_.get(), &running)) {
      if (message->msg != CURLMSG_DONE) continue;
      void* transfer = nullptr;
      curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &transfer);
      static_cast<Transfer*>(transfer)->result = message->data.result;
      static_cast<Transfer*>(transfer)->done.set();
    }
  }
  void act_on(int fd, int revents) {
    int events = 0;
    if ((revents & (POLLIN | POLLHUP)) != 0) events |= CURL_CSELECT_IN;
    if ((revents & POLLOUT) != 0) events |= CURL_CSELECT_OUT;
    if ((revents & POLLERR) != 0) events |= CURL_CSELECT_ERR;
    act(fd, events);
  }

  Watched watched_{[this](int fd, int revents) { act_on(fd, revents); },
                   [this] { act(CURL_SOCKET_TIMEOUT, 0); }};
  std::unique_ptr<CURLM, decltype(&curl_multi_cleanup)> multi_;  // goes first
};

}  // namespace adapters
