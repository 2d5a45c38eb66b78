#pragma once

#include <weir/net/tls/material.h>
#include <weir/net/tls/ticket_keys.h>
#include <weir/net/transform.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace weir::detail {

/// What a `TlsContext` stands for. From any thread.
class TlsFactory final : public HandshakeFactory, public std::enable_shared_from_this<TlsFactory> {
 public:
  explicit TlsFactory(TlsServerOptions options);
  explicit TlsFactory(TlsClientOptions options);
  ~TlsFactory() override;

  void add(Identity identity);
  void reload();

  std::unique_ptr<Handshake> make(std::string_view peer) override;
  [[nodiscard]] std::chrono::milliseconds handshake_timeout() const noexcept override;
  [[nodiscard]] bool accepts() const noexcept override { return server() != nullptr; }
  [[nodiscard]] std::string secrets() const override;
  void inherit(std::string_view secrets) noexcept override;

  /// This thread's, of the files as they are in force.
  [[nodiscard]] std::shared_ptr<const Contexts> contexts();
  [[nodiscard]] const TlsServerOptions* server() const noexcept {
    return std::get_if<TlsServerOptions>(&options_);
  }
  [[nodiscard]] const TlsClientOptions* client() const noexcept {
    return std::get_if<TlsClientOptions>(&options_);
  }
  [[nodiscard]] bool allows_truncation() const noexcept;
  /// A server's.
  [[nodiscard]] TicketKeys& tickets() noexcept { return *tickets_; }
  [[nodiscard]] const std::string& protocols() const noexcept { return protocols_; }

  // Sessions of a client, by the server's name.
  void keep_session(const std::string& peer, SessionPointer session);
  [[nodiscard]] SessionPointer take_session(const std::string& peer);

 private:
  [[nodiscard]] std::shared_ptr<const Material> load_all(const std::vector<Identity>& more) const;
  [[nodiscard]] std::shared_ptr<const Contexts> make_contexts_of(const Material& material) const;
  void put_in_force(std::shared_ptr<const Material> material);

  const std::variant<TlsServerOptions, TlsClientOptions> options_;
  const std::string protocols_;
  const std::uint64_t id_;  // of all factories ever made
  std::optional<TicketKeys> tickets_;
  std::atomic<std::uint64_t> generation_{0};
  mutable std::mutex mutex_;
  std::vector<Identity> more_;
  std::shared_ptr<const Material> material_;
  std::mutex reloading_;
  std::multimap<std::string, SessionPointer> sessions_;
};

}  // namespace weir::detail
