#pragma once

#include <weir/inspect.h>

#include <doctest/doctest.h>

#include <string>
#include <string_view>

#include "net.h"
#include "net_server.h"

namespace weir::test {

/// An inspector's answer, head and body. `accept` is what the client takes.
inline std::string get(const SocketAddress& address, std::string_view path,
                       std::string_view accept = "*/*") {
  Peer peer = Peer::connect(address);
  peer.send("GET " + std::string(path) + " HTTP/1.1\r\nHost: weir\r\nAccept: " +
            std::string(accept) + "\r\nConnection: close\r\n\r\n");
  return peer.receive_all();
}

inline std::string get(const Inspector& inspector, std::string_view path,
                       std::string_view accept = "*/*") {
  return get(inspector.address(), path, accept);
}

inline bool has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

/// The line that has the text; nothing if none has.
inline std::string line_with(const std::string& lines, std::string_view text) {
  const std::size_t at = lines.find(text);
  if (at == std::string::npos) return {};
  const std::size_t begin = lines.rfind('\n', at) + 1;
  return lines.substr(begin, lines.find('\n', at) - begin);
}

/// Asks until the tree has the text.
inline std::string tree_with(const Inspector& inspector, std::string_view text) {
  std::string tree;
  CAPTURE(text);
  CHECK(eventually([&] { return has(tree = get(inspector, "/tasks"), text); }));
  return tree;
}

/// A loop to be looked at. Ends its tasks where they are: on its thread, before what they refer to
/// goes.
struct Inspected {
  explicit Inspected(Engine engine) : thread({.engine = engine, .name = "inspected"}) {}
  EventLoopThread thread;
  EventLoop& loop() { return thread.loop(); }
};

}  // namespace weir::test
