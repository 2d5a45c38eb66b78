// HTTP: requests come out the same however the stream is cut, each gets one well-formed head, and
// no file from outside the directory.
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "../../examples/http/request_parser.h"
#include "../../examples/http/site.h"
#include "input.h"

using namespace weir::fuzz;

namespace {

/// A directory with files, and a file beside it; removed at the end of the process.
struct Tree {
  Tree() {
    std::string name = (std::filesystem::temp_directory_path() / "weir-fuzz-XXXXXX").string();
    require(::mkdtemp(name.data()) != nullptr);
    base = std::filesystem::canonical(name).string();
    std::filesystem::create_directories(base + "/site/a");
    for (const char* file : {"/secret", "/site/f", "/site/index.html", "/site/a/b"}) {
      std::ofstream(base + file) << "0123456789";
    }
    std::filesystem::create_symlink("../secret", base + "/site/l");
  }
  Tree(const Tree&) = delete;
  Tree& operator=(const Tree&) = delete;
  ~Tree() { std::filesystem::remove_all(base); }
  std::string base;
};

void check(const http::Response& response, const std::string& root) {
  const std::string_view head = response.head;
  require(head.starts_with("HTTP/1.1 "));
  require(head.find("\r\n\r\n") == head.size() - 4);
  for (std::size_t i = 0; i < head.size(); ++i) {
    if (head[i] == '\n') require(i > 0 && head[i - 1] == '\r');
    if (head[i] == '\r') require(head[i + 1] == '\n');
    require(head[i] != '\0');
  }
  if (!response.file) return;
  require(response.offset + response.length <= 10);
  const std::string link = "/proc/self/fd/" + std::to_string(response.file.fd());
  require(std::filesystem::read_symlink(link).string().starts_with(root + '/'));
}

std::string transcript(std::string_view bytes, std::uint8_t cut) {
  static const Tree tree;
  static const std::string root = tree.base + "/site";
  static const http::Site site(root);
  http::RequestParser parser({.head = 256, .body = 64});
  std::string all;
  for (Pieces pieces(bytes, cut); !pieces.empty();) {
    for (std::string_view left = pieces.next(); !left.empty();) {
      const std::size_t taken = parser.feed(left);
      require(taken <= left.size());
      left.remove_prefix(taken);
      if (const int status = parser.problem(); status != 0) {
        const http::Response refusal = http::Site::refuse(status, parser.is_head());
        check(refusal, root);
        require(refusal.body.empty() == parser.is_head());
        return all + "problem " + std::to_string(status);
      }
      require(parser.whole() || left.empty());
      if (!parser.whole()) break;
      const http::Response response = site.respond(parser.request());
      check(response, root);
      all += parser.request().method + ' ' + std::to_string(response.status) + ' ' +
             std::to_string(response.offset) + ' ' + std::to_string(response.length) + '\n';
      if (!response.keep_alive) return all + "closed";
      parser.next();
    }
  }
  return all + (parser.midway() ? "midway" : "whole");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  const std::uint8_t cut = input.choice();
  require(transcript(input.rest(), cut) == transcript(input.rest(), 0));
  return 0;
}
