#pragma once

#include <weir/net/tls/conversation.h>
#include <weir/net/tls/factory.h>
#include <weir/net/tls/openssl.h>
#include <weir/net/tls/start_tls.h>
#include <weir/net/transform.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace weir::detail {

class TlsErrand;

/// One connection's TLS, between its wire and its boxes. OpenSSL reads what has come from where it
/// lies, and writes records into the segments that are sent; between two calls it keeps no buffer
/// but a part of a record. Loop's thread.
class TlsTransform final : public Handshake, private Conversation {
 public:
  TlsTransform(std::shared_ptr<TlsFactory> factory, std::string peer);
  ~TlsTransform() override;

  Failure receive(BufferRef buffer, const std::byte* data, std::size_t size, Inbox& inbox) override;
  Failure receive_end(Inbox& inbox) override;
  std::size_t send(std::span<const Slice> plain, bool ending, SegmentQueue& wire) override;
  [[nodiscard]] bool has_output() const noexcept override { return !own_.empty(); }
  [[nodiscard]] bool full() const noexcept override;
  [[nodiscard]] std::size_t kept() const noexcept override { return done() ? inside_ : 0; }
  void over(Failure failure) noexcept override;

  [[nodiscard]] bool done() const noexcept override { return phase_ == Phase::open; }
  [[nodiscard]] bool has_work() const noexcept override;
  Failure work(Inbox& inbox) override;
  std::shared_ptr<Errand> errand() override;
  [[noreturn]] void throw_failure() const override;

  [[nodiscard]] TlsInfo info() const;

 private:
  enum class Phase : std::uint8_t { fresh, shaking, open, failed };

  bool append(const std::byte* data, std::size_t size) noexcept override;
  [[nodiscard]] std::shared_ptr<const Contexts> contexts() override { return factory_->contexts(); }

  void begin();
  void begin_client();
  void open() noexcept;
  void take_in_errand();
  Failure work_behind(Inbox& inbox);
  Failure decrypt(const std::byte* data, std::size_t size, Inbox& inbox);
  void encrypt(const void* data, std::size_t size);
  void move_own(SegmentQueue& wire);

  SslPointer ssl_;
  std::shared_ptr<TlsErrand> errand_;  // which has the above, and what had come
  SegmentQueue held_;                  // what has come and waits for the handshake
  std::size_t held_size_ = 0;
  std::size_t inside_ = 0;  // bytes of a record that is not whole, at the most
  SegmentQueue own_;        // records for the wire
  std::size_t own_size_ = 0;
  BufferRef filling_;  // the last of those, while it is being filled
  std::size_t filled_ = 0;
  std::size_t expected_ = 0;  // how much is about to be written
  Failure failure_ = 0;
  Phase phase_ = Phase::fresh;
  bool wire_ended_ = false;  // during the handshake
  bool peer_said_all_ = false;
  bool said_all_ = false;
};

}  // namespace weir::detail
