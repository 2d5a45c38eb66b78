#pragma once

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <ctime>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "request_parser.h"

namespace http {

/// An open file.
class File {
 public:
  File() = default;
  explicit File(int fd) : fd_(fd) {}
  File(File&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  File& operator=(File&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }
  [[nodiscard]] int fd() const { return fd_; }
  /// Puts a part of it behind the text. False if that cannot be read, or is not there any more.
  [[nodiscard]] bool append_to(std::string& text, std::uint64_t offset, std::size_t length) const {
    const std::size_t begin = text.size();
    text.resize(begin + length);
    return ::pread(fd_, text.data() + begin, length, static_cast<off_t>(offset)) ==
           static_cast<ssize_t>(length);
  }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

struct Response {
  int status = 200;
  std::string head;  // with the empty line at its end
  std::string body;  // a short one …
  File file;         // … or a part of a file
  std::uint64_t offset = 0;
  std::size_t length = 0;
  bool keep_alive = true;
};

/// What a directory, and /hello, have for a request. Thread-safe: it never changes.
class Site {
 public:
  /// Throws `std::system_error` naming the directory.
  explicit Site(const std::string& directory)
      : root_(::open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)) {
    if (!root_) {
      throw std::system_error(errno, std::generic_category(), "cannot open '" + directory + "'");
    }
  }

  [[nodiscard]] Response respond(const Request& request) const {
    Response response;
    response.keep_alive = request.keep_alive;
    const auto raw = path_of(request.target);
    const auto path = raw ? decoded(*raw) : std::nullopt;
    if (!path) return failure(400, request);
    if (*path == "/hello") {
      response.body = "hello, world\n";
      return finished(std::move(response), request, "Content-Type: text/plain\r\n");
    }
    // Neither ".." nor hidden files; and the kernel lets no symbolic link lead out of the root.
    if (path->find("/.") != std::string::npos) return failure(404, request);
    const std::size_t begin = path->find_first_not_of('/');
    std::string name = begin == std::string::npos ? "." : path->substr(begin);
    const bool slash = path->ends_with('/');
    if (slash && name != ".") name += "index.html";
    if (name == ".") name = "index.html";

    File file = open_beneath(name);
    if (!file) return failure(status_of(errno), request);
    struct stat status{};
    if (::fstat(file.fd(), &status) != 0) return failure(500, request);
    if (S_ISDIR(status.st_mode)) {
      // One slash in front: with two it would name another host.
      response.status = 301;
      const std::size_t start = std::min(raw->find_first_not_of('/'), raw->size());
      const std::string location = '/' + std::string(raw->substr(start)) + '/';
      return finished(std::move(response), request, "Location: " + location + "\r\n");
    }
    if (!S_ISREG(status.st_mode)) return failure(404, request);
    return with_file(std::move(file), status, name, request);
  }

  /// The answer to a request that has a problem, or to none; the connection ends after it. Without
  /// a body, if it was one for a head.
  static Response refuse(int status, bool is_head) {
    Request request;
    if (is_head) request.method = "HEAD";
    request.keep_alive = false;
    return failure(status, request);
  }

 private:
  /// The bytes from `first` to `last` of a file; no more than a single range.
  struct Range {
    std::uint64_t first;
    std::uint64_t last;
  };
  enum class Ranged { whole, part, unsatisfiable };

  static const char* reason(int status) {
    switch (status) {
      case 200:
        return "OK";
      case 206:
        return "Partial Content";
      case 301:
        return "Moved Permanently";
      case 400:
        return "Bad Request";
      case 403:
        return "Forbidden";
      case 404:
        return "Not Found";
      case 405:
        return "Method Not Allowed";
      case 408:
        return "Request Timeout";
      case 413:
        return "Content Too Large";
      case 416:
        return "Range Not Satisfiable";
      case 417:
        return "Expectation Failed";
      case 431:
        return "Request Header Fields Too Large";
      case 501:
        return "Not Implemented";
      case 503:
        return "Service Unavailable";
      case 505:
        return "HTTP Version Not Supported";
      default:
        return "Internal Server Error";
    }
  }

  static int status_of(int error) {
    switch (error) {
      case EACCES:
      case EPERM:
        return 403;
      case EMFILE:
      case ENFILE:
      case ENOMEM:
        return 503;
      default:
        return 404;
    }
  }

  static const char* type_of(std::string_view name) {
    constexpr std::pair<const char*, const char*> kTypes[] = {{".html", "text/html; charset=utf-8"},
                                                              {".txt", "text/plain; charset=utf-8"},
                                                              {".css", "text/css"},
                                                              {".js", "text/javascript"},
                                                              {".json", "application/json"},
                                                              {".svg", "image/svg+xml"},
                                                              {".png", "image/png"},
                                                              {".jpg", "image/jpeg"}};
    for (const auto& [ending, type] : kTypes) {
      if (name.ends_with(ending)) return type;
    }
    return "application/octet-stream";
  }

  static std::string date_text(std::time_t time) {
    std::tm parts{};
    ::gmtime_r(&time, &parts);
    char text[64];
    return {text, std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &parts)};
  }
  /// Now; made once a second.
  static const std::string& date_now() {
    thread_local std::time_t made_at = -1;
    thread_local std::string text;
    if (const std::time_t now = std::time(nullptr); now != made_at) {
      made_at = now;
      text = date_text(now);
    }
    return text;
  }

  /// The path of "/path?query" or "http://host/path?query", as it was sent.
  static std::optional<std::string_view> path_of(std::string_view target) {
    if (target.starts_with("http://")) {
      target.remove_prefix(7);
      target.remove_prefix(std::min(target.find_first_of("/?#"), target.size()));
      if (!target.starts_with('/')) return "/";
    }
    if (!target.starts_with('/')) return std::nullopt;
    return target.substr(0, target.find_first_of("?#"));
  }

  static std::optional<std::string> decoded(std::string_view path) {
    std::string text;
    for (std::size_t i = 0; i < path.size(); ++i) {
      char c = path[i];
      if (c == '%') {
        unsigned byte = 0;
        const char* begin = path.data() + i + 1;
        if (path.size() - i < 3 || std::from_chars(begin, begin + 2, byte, 16).ptr != begin + 2) {
          return std::nullopt;
        }
        c = static_cast<char>(byte);
        i += 2;
      }
      if (c == '\0') return std::nullopt;
      text += c;
    }
    return text;
  }

  [[nodiscard]] File open_beneath(const std::string& name) const {
    open_how how{};
    how.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
    return File(
        static_cast<int>(::syscall(SYS_openat2, root_.fd(), name.c_str(), &how, sizeof how)));
  }

  /// "bytes=2-5", "bytes=2-" or "bytes=-4"; anything else asks for the whole, says RFC 9110.
  static Ranged range_in(std::string_view text, std::uint64_t size, Range& range) {
    constexpr std::string_view kUnit = "bytes=";
    if (!text.starts_with(kUnit)) return Ranged::whole;
    text.remove_prefix(kUnit.size());
    const std::size_t dash = text.find('-');
    if (dash == std::string_view::npos || text.size() == 1) return Ranged::whole;
    const auto number = [](std::string_view digits, std::uint64_t& value) {
      const auto [stop, error] = std::from_chars(digits.begin(), digits.end(), value);
      return error == std::errc() && stop == digits.end();
    };
    const std::string_view first = text.substr(0, dash);
    const std::string_view last = text.substr(dash + 1);
    std::uint64_t a = 0;
    std::uint64_t b = 0;
    if (!first.empty() && !number(first, a)) return Ranged::whole;
    if (!last.empty() && !number(last, b)) return Ranged::whole;
    if (first.empty()) {
      if (b == 0 || size == 0) return Ranged::unsatisfiable;
      range = {size - std::min(b, size), size - 1};
      return Ranged::part;
    }
    if (!last.empty() && b < a) return Ranged::whole;
    if (a >= size) return Ranged::unsatisfiable;
    range = {a, last.empty() ? size - 1 : std::min(b, size - 1)};
    return Ranged::part;
  }

  static Response with_file(File file, const struct stat& status, std::string_view name,
                            const Request& request) {
    const auto size = static_cast<std::uint64_t>(status.st_size);
    Range range{};
    Ranged ranged = Ranged::whole;
    const std::string* asked = request.header("range");
    // If-Range compares with what we do not give out: so the file is not the one meant.
    if (asked != nullptr && request.method == "GET" && request.header("if-range") == nullptr) {
      ranged = range_in(*asked, size, range);
    }
    if (ranged == Ranged::unsatisfiable) {
      return failure(416, request, "Content-Range: bytes */" + std::to_string(size) + "\r\n");
    }
    Response response;
    response.keep_alive = request.keep_alive;
    response.length = size;
    std::string headers =
        std::string("Content-Type: ") + type_of(name) +
        "\r\nAccept-Ranges: bytes\r\nLast-Modified: " + date_text(status.st_mtim.tv_sec) + "\r\n";
    if (ranged == Ranged::part) {
      response.status = 206;
      response.offset = range.first;
      response.length = range.last - range.first + 1;
      headers += "Content-Range: bytes " + std::to_string(range.first) + '-' +
                 std::to_string(range.last) + '/' + std::to_string(size) + "\r\n";
    }
    response.file = std::move(file);
    return finished(std::move(response), request, headers);
  }

  static Response failure(int status, const Request& request, const std::string& headers = {}) {
    Response response;
    response.status = status;
    response.keep_alive = request.keep_alive;
    response.body = std::to_string(status) + ' ' + reason(status) + '\n';
    return finished(
        std::move(response), request,
        "Content-Type: text/plain\r\n" + headers + (status == 405 ? "Allow: GET, HEAD\r\n" : ""));
  }

  /// Its head; without a body, if the request was HEAD.
  static Response finished(Response response, const Request& request, const std::string& headers) {
    const std::size_t length = response.file ? response.length : response.body.size();
    std::string& head = response.head;
    head.reserve(256 + headers.size());
    head.append("HTTP/1.1 ").append(std::to_string(response.status)).append(" ");
    head.append(reason(response.status)).append("\r\nDate: ").append(date_now()).append("\r\n");
    head.append(headers).append("Content-Length: ").append(std::to_string(length)).append("\r\n");
    if (!response.keep_alive) {
      head.append("Connection: close\r\n");
    } else if (request.minor_version == 0) {
      head.append("Connection: keep-alive\r\n");
    }
    head.append("\r\n");
    if (request.method == "HEAD") {
      response.body.clear();
      response.file = File();
      response.length = 0;
    }
    return response;
  }

  File root_;
};

}  // namespace http
