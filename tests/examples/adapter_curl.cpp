// libcurl on weir's loop against nginx.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "../../examples/adapters/curl.h"
#include "example.h"
#include "service.h"

using namespace weir;
using namespace weir::test;

namespace {

constexpr std::size_t kPageBytes = 200'000;

/// nginx on a Unix socket: a page, and the same page at two kilobytes a second.
class Nginx {
 public:
  explicit Nginx(const std::string& program) : service_(program, arguments()) {
    service_.wait_for_listener(SocketAddress::parse("unix:" + socket()));
  }

  [[nodiscard]] std::string socket() const { return directory_.file("socket"); }
  [[nodiscard]] std::function<void(CURL*)> here() const {
    return [path = socket()](CURL* easy) {
      curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, path.c_str());
    };
  }

 private:
  std::vector<std::string> arguments() {
    const std::string here = directory_.file("");
    std::ofstream(directory_.file("page")) << pattern(kPageBytes);
    std::ofstream(directory_.file("conf"))
        << "daemon off; master_process off; pid " << here << "pid; error_log stderr crit;\n"
        << "events { worker_connections 512; }\n"
        << "http { access_log off; client_body_temp_path " << here << "body;\n"
        << "proxy_temp_path " << here << "proxy; fastcgi_temp_path " << here << "fastcgi;\n"
        << "uwsgi_temp_path " << here << "uwsgi; scgi_temp_path " << here << "scgi;\n"
        << "server { listen unix:" << socket() << "; root " << here << ";\n"
        << "location /slow/ { alias " << here << "; limit_rate 2k; } } }\n";
    return {"-p", here, "-c", directory_.file("conf"), "-e", "stderr"};
  }

  Directory directory_;
  Service service_;
};

Task<> download(adapters::Curl& curl, const Nginx& nginx, int& whole) {
  const adapters::CurlResponse response = co_await curl.get("http://nginx/page", nginx.here());
  CHECK(response.status == 200);
  CHECK(response.body.size() == kPageBytes);
  if (matching(response.body, 1, 0) == kPageBytes) ++whole;
}

std::size_t say_begun(char* /*data*/, std::size_t size, std::size_t count, void* begun) {
  static_cast<Event*>(begun)->set();
  return size * count;
}

/// What fetching it throws.
Task<std::string> failure(adapters::Curl& curl, std::string url,
                          std::function<void(CURL*)> prepare) {
  std::string said;
  try {
    (void)co_await curl.get(url, prepare);
  } catch (const std::runtime_error& error) {
    said = error.what();
  }
  co_return said;
}

}  // namespace

TEST_CASE("a hundred downloads run at once, and one of them is dropped in its middle") {
  const std::string program = service_program("nginx");
  if (program.empty()) return;
  const Nginx nginx(program);
  on_each_kernel_engine("libcurl has sockets of its own", [&]() -> Task<> {
    const std::size_t descriptors = count_descriptors();
    {
      adapters::Curl curl;
      Event begun;
      int whole = 0;
      TaskGroup downloads;
      TaskGroup dropped;
      for (int i = 0; i < 99; ++i) downloads.spawn(download(curl, nginx, whole));
      const auto tell = [&](CURL* easy) {
        nginx.here()(easy);
        curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &say_begun);
        curl_easy_setopt(easy, CURLOPT_WRITEDATA, &begun);
      };
      dropped.spawn(curl.get("http://nginx/slow/page", tell));
      co_await begun.wait();
      CHECK(dropped.size() == 1);
      dropped.cancel();
      co_await downloads.join();
      CHECK(whole == 99);
      co_await download(curl, nginx, whole);
      CHECK(whole == 100);
    }
    CHECK(count_descriptors() == descriptors);
  });
}

TEST_CASE("a download is dropped with its libcurl before it has begun") {
  on_each_kernel_engine("libcurl has sockets of its own", []() -> Task<> {
    adapters::Curl curl;
    TaskGroup downloads;
    downloads.spawn([&curl]() -> Task<> { (void)co_await curl.get("http://127.0.0.1:1/"); });
    co_return;
  });
}

TEST_CASE("libcurl's errors and its timeout come as exceptions, a status does not") {
  const std::string program = service_program("nginx");
  if (program.empty()) return;
  const Nginx nginx(program);
  on_each_kernel_engine("libcurl has sockets of its own", [&]() -> Task<> {
    adapters::Curl curl;
    const adapters::CurlResponse missing =
        co_await curl.get("http://nginx/no_such_page", nginx.here());
    CHECK(missing.status == 404);
    Event begun;
    const auto in_time = [&](CURL* easy) {
      nginx.here()(easy);
      curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &say_begun);
      curl_easy_setopt(easy, CURLOPT_WRITEDATA, &begun);
      curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, 50L);
    };
    const std::string late = co_await failure(curl, "http://nginx/slow/page", in_time);
    CHECK(late == curl_easy_strerror(CURLE_OPERATION_TIMEDOUT));
    const auto nowhere = [&](CURL* easy) {
      curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, (nginx.socket() + "-not").c_str());
    };
    const std::string refused = co_await failure(curl, "http://nginx/", nowhere);
    CHECK(refused == curl_easy_strerror(CURLE_COULDNT_CONNECT));
  });
}

TEST_CASE("the program for libcurl fetches what it is given") {
  const Directory directory;
  std::ofstream(directory.file("a")) << "four";
  const std::string url = "file://" + directory.file("a");
  const Ran ran = run_program(Example::path_of("adapters/curl_get"), {url, url, url + "-not"});
  INFO(ran.output);
  CHECK(ran.status == 0);
  CHECK(ran.output.find(url + ": 0, 4 bytes") != std::string::npos);
  CHECK(ran.output.find(url + "-not: ") != std::string::npos);
}
