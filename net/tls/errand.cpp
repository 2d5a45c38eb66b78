#include <weir/net/tls/errand.h>

#include <cerrno>

namespace weir::detail {

TlsErrand::TlsErrand(std::shared_ptr<TlsFactory> factory, SegmentQueue& held, std::size_t size)
    : Conversation(std::move(factory), {}), contexts_(factory_->contexts()) {
  input_.reserve(size);
  for (std::uint32_t i = 0; i < held.size(); ++i) {
    const Segment& piece = held[i];
    input_.insert(input_.end(), piece.data(), piece.data() + piece.size());
  }
}

/// Whoever waited for it may be gone.
TlsErrand::~TlsErrand() {
  if (ssl_ == nullptr) return;
  const Call call(*this);
  ssl_.reset();
  forget_errors();
}

void TlsErrand::run() noexcept {
  try {
    come_to_thread(ssl_.get());
  } catch (...) {
    failure_ = ENOMEM;
    return;
  }
  shake();
  leave_thread(ssl_.get());
}

void TlsErrand::shake() noexcept {
  const Call call(*this, input_.data(), input_.size());
  const int result = ::SSL_do_handshake(ssl_.get());
  used_ = input_.size() - Call::left();
  has_agreed_ = result == 1;
  if (has_agreed_) return;
  const int error = ::SSL_get_error(ssl_.get(), result);
  if (error != SSL_ERROR_WANT_READ) failure_ = failed(ssl_.get(), error);
}

bool TlsErrand::append(const std::byte* data, std::size_t size) noexcept {
  try {
    records_.insert(records_.end(), data, data + size);
    return true;
  } catch (...) {
    no_memory_ = true;
    return false;
  }
}

}  // namespace weir::detail
