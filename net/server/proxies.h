#pragma once

#include <weir/net/proxy_header.h>
#include <weir/net/socket_address.h>
#include <weir/net/transform.h>

#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace weir::detail {

class Connection;

/// The networks whose clients begin with a PROXY header. From any thread.
class TrustedProxies {
 public:
  /// "10.0.0.0/8", "2001:db8::/32", an address alone, or "unix:", every client of a Unix socket.
  /// Throws `std::invalid_argument` that names the option and the text.
  explicit TrustedProxies(const std::vector<std::string>& networks);

  [[nodiscard]] bool none() const noexcept { return networks_.empty() && !local_; }
  /// An IPv4 address may be mapped into IPv6.
  [[nodiscard]] bool contain(const SocketAddress& peer) const noexcept;

 private:
  struct Network {
    std::array<unsigned char, 16> host;  // an IPv4 one is mapped
    unsigned bits;                       // of these that count
    bool is_v4;
  };
  static Network parse(const std::string& text);

  std::vector<Network> networks_;
  bool local_ = false;
};

/// The beginning of a connection that comes from a proxy: keeps what comes until the header is
/// there. Then the connection goes on without it.
class ProxyGreeting final : public Handshake {
 public:
  Failure receive(BufferRef buffer, const std::byte* data, std::size_t size, Inbox& inbox) override;
  Failure receive_end(Inbox& inbox) override;
  /// What is to be sent waits.
  std::size_t send(std::span<const Slice> plain, bool ending, SegmentQueue& wire) override;
  [[nodiscard]] bool full() const noexcept override {
    return held_.size() >= ProxyHeader::kLongest;
  }
  void over(Failure failure) noexcept override;

  [[nodiscard]] bool done() const noexcept override {
    return header_.state == ProxyHeader::State::complete;
  }
  [[nodiscard]] bool has_work() const noexcept override {
    return failure_ != 0 || ended_ || held_.size() != looked_at_;
  }
  Failure work(Inbox& inbox) override;
  [[noreturn]] void throw_failure() const override;

  /// Once it is done. Empty: the connection is the proxy's own, or it does not say for whom.
  [[nodiscard]] const SocketAddress& client() const noexcept { return header_.client; }
  /// Takes itself out of the connection, which gets what has come behind the header. Throws
  /// `std::bad_alloc`.
  void leave(Connection& connection);

 private:
  std::string held_;
  std::size_t looked_at_ = 0;
  ProxyHeader header_{ProxyHeader::State::incomplete};
  Failure failure_ = 0;
  bool ended_ = false;
};

}  // namespace weir::detail
