#pragma once

#include <weir/net/tls/conversation.h>
#include <weir/net/transform.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace weir::detail {

/// A step of a server's handshake, with all that it needs: OpenSSL's part of the connection, a copy
/// of what has come, room for what is to go.
class TlsErrand final : public Errand, private Conversation {
 public:
  /// On the connection's loop.
  TlsErrand(std::shared_ptr<TlsFactory> factory, SegmentQueue& held, std::size_t size);
  ~TlsErrand() override;

  void take(SslPointer ssl) noexcept { ssl_ = std::move(ssl); }
  void run() noexcept override;

  // Once it has run.
  [[nodiscard]] SslPointer give_back() noexcept { return std::move(ssl_); }
  [[nodiscard]] bool has_agreed() const noexcept { return has_agreed_; }
  [[nodiscard]] Failure failure() const noexcept { return failure_; }
  [[nodiscard]] const std::string& problem() const noexcept { return problem_; }
  /// For the wire.
  [[nodiscard]] std::span<const std::byte> records() const noexcept { return records_; }
  /// Of what had come: OpenSSL has not asked for it.
  [[nodiscard]] std::span<const std::byte> rest() const noexcept {
    return std::span(input_).subspan(used_);
  }

 private:
  bool append(const std::byte* data, std::size_t size) noexcept override;
  [[nodiscard]] std::shared_ptr<const Contexts> contexts() override { return contexts_; }
  void shake() noexcept;

  const std::shared_ptr<const Contexts> contexts_;
  SslPointer ssl_;
  std::vector<std::byte> input_;
  std::size_t used_ = 0;
  std::vector<std::byte> records_;
  Failure failure_ = 0;
  bool has_agreed_ = false;
};

}  // namespace weir::detail
