// GETs of a page, many transfers at a time: curl_multi_perform and curl_multi_poll as in curl's
// examples (10-at-a-time.c), and weir. `--server` is the URL; the page has 1024 bytes.
#include <exception>
#include <vector>

#include "../../examples/adapters/curl.h"
#include "load.h"

namespace {

constexpr std::size_t kPageBytes = 1024;

// ---- curl's own loop ----

std::size_t on_body(char* data, std::size_t size, std::size_t count, void* body) {
  static_cast<std::string*>(body)->append(data, size * count);
  return size * count;
}

void begin(CURLM* multi, const std::string& url) {
  CURL* easy = curl_easy_init();
  auto* body = new std::string;
  curl_easy_setopt(easy, CURLOPT_URL, url.c_str());
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &on_body);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, body);
  curl_easy_setopt(easy, CURLOPT_PRIVATE, body);
  curl_multi_add_handle(multi, easy);
}

void end(CURLM* multi, const CURLMsg& message) {
  CURL* easy = message.easy_handle;
  std::string* body = nullptr;
  long status = 0;
  curl_easy_getinfo(easy, CURLINFO_PRIVATE, &body);
  curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
  load::require(message.data.result == CURLE_OK, curl_easy_strerror(message.data.result));
  load::require(status == 200 && body->size() == kPageBytes, "a wrong page");
  delete body;
  curl_multi_remove_handle(multi, easy);
  curl_easy_cleanup(easy);
}

void own_loop(const load::Options& options, load::Meter& meter) {
  CURLM* multi = curl_multi_init();
  for (std::size_t i = 0; i < options.in_flight; ++i) begin(multi, options.server);
  for (std::size_t under_way = options.in_flight; under_way != 0;) {
    int running = 0;
    curl_multi_perform(multi, &running);
    int left = 0;
    while (const CURLMsg* message = curl_multi_info_read(multi, &left)) {
      if (message->msg != CURLMSG_DONE) continue;
      end(multi, *message);
      if (meter.done()) {
        begin(multi, options.server);
      } else {
        --under_way;
      }
    }
    if (under_way != 0) curl_multi_poll(multi, nullptr, 0, 1000, nullptr);
  }
  curl_multi_cleanup(multi);
}

// ---- weir ----

weir::Task<> client(adapters::Curl& curl, const std::string& url, load::Meter& meter) {
  for (bool more = true; more; more = meter.done()) {
    const adapters::CurlResponse response = co_await curl.get(url);
    load::require(response.status == 200 && response.body.size() == kPageBytes, "a wrong page");
  }
}

weir::Task<> weir_loop(const load::Options& options, load::Meter& meter) {
  adapters::Curl curl;
  std::vector<weir::Task<>> clients;
  for (std::size_t i = 0; i < options.in_flight; ++i)
    clients.push_back(client(curl, options.server, meter));
  co_await weir::when_all(std::move(clients));
}

}  // namespace

int main(int argc, char** argv) try {
  const load::Options options(argc, argv);
  curl_global_init(CURL_GLOBAL_ALL);
  load::Meter meter(options);
  if (options.loop == "own") {
    own_loop(options, meter);
  } else {
    weir::run(weir_loop(options, meter));
  }
  meter.print();
} catch (const std::exception& error) {
  std::fprintf(stderr, "curl_loops: %s\n", error.what());
  return 1;
}
