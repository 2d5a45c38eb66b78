#include <weir/net/tls/errand.h>
#include <weir/net/tls/simulated_random.h>
#include <weir/net/tls/tls_transform.h>

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <new>
#include <utility>

namespace weir::detail {
namespace {

constexpr std::size_t kRecord = SSL3_RT_MAX_PLAIN_LENGTH;
/// What a record has besides, at the most.
constexpr std::size_t kOverhead = 64;
/// Encrypted at once: as many records as a large recycled buffer holds.
constexpr std::size_t kMostAtOnce = kBulkBuffer / (kRecord + kOverhead) * kRecord;
/// A part of a record that OpenSSL keeps, at the most.
constexpr std::size_t kMostInside = SSL3_RT_MAX_PACKET_SIZE;
/// What may come during a handshake before it was worked on.
constexpr std::size_t kMostHeld = 64 << 10;
/// What is queued of the protocol's own, at the peer's wish, which does not read it.
constexpr std::size_t kMostOwn = 64 << 10;

}  // namespace

TlsTransform::TlsTransform(std::shared_ptr<TlsFactory> factory, std::string peer)
    : Conversation(std::move(factory), std::move(peer)) {}

TlsTransform::~TlsTransform() {
  if (ssl_ == nullptr) return;
  const Call call(*this);
  if (phase_ == Phase::open) {
    // Without it the session would count as broken off, and could not be resumed.
    ::SSL_set_shutdown(ssl_.get(), SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
  }
  ssl_.reset();
  forget_errors();
}

// ---- the handshake ------------------------------------------------------------------------------

void TlsTransform::open() noexcept {
  phase_ = Phase::open;
  agreed_ = true;
}

/// Not before it is needed: whoever connects and says nothing costs nothing.
void TlsTransform::begin() {
  forget_errors();
  const auto contexts = factory_->contexts();
  ssl_.reset(::SSL_new(contexts->main.get()));
  if (ssl_ == nullptr) throw std::bad_alloc();
  come_to_thread(ssl_.get());
  // The ages of tickets would make a simulated run unlike the one before.
  const bool simulated = draw_from_simulation();
  if (simulated) ::X509_VERIFY_PARAM_set_time(::SSL_get0_param(ssl_.get()), simulated_time());
  if (factory_->accepts()) {
    ::SSL_set_verify(ssl_.get(), ::SSL_get_verify_mode(ssl_.get()), verifier());
    if (simulated) {
      ::SSL_set_options(ssl_.get(), SSL_OP_NO_TICKET);
      ::SSL_set_num_tickets(ssl_.get(), 0);
    }
    ::SSL_set_accept_state(ssl_.get());
  } else {
    begin_client();
    if (!simulated && !peer_.empty()) {
      const SessionPointer session = factory_->take_session(peer_);
      if (session != nullptr) ::SSL_set_session(ssl_.get(), session.get());
    }
    ::SSL_set_connect_state(ssl_.get());
  }
  phase_ = Phase::shaking;
}

void TlsTransform::begin_client() {
  SSL* ssl = ssl_.get();
  ::SSL_set_verify(ssl, factory_->client()->verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, verifier());
  if (peer_.empty()) return;
  unsigned char address[16];
  bool ok = false;
  if (::inet_pton(AF_INET, peer_.c_str(), address) == 1 ||
      ::inet_pton(AF_INET6, peer_.c_str(), address) == 1) {
    ok = ::X509_VERIFY_PARAM_set1_ip_asc(::SSL_get0_param(ssl), peer_.c_str()) == 1;
  } else {
    ::SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    ok = SSL_set_tlsext_host_name(ssl, peer_.c_str()) == 1 &&
         ::SSL_set1_host(ssl, peer_.c_str()) == 1;
  }
  if (!ok) throw_openssl_failure("weir: TLS: the name \"" + peer_ + "\" is not accepted");
}

bool TlsTransform::has_work() const noexcept {
  if (failure_ != 0 || !held_.empty() || wire_ended_) return true;
  return phase_ == Phase::fresh && !factory_->accepts();
}

bool TlsTransform::full() const noexcept {
  return held_size_ >= kMostHeld || own_size_ >= kMostOwn;
}

std::shared_ptr<Errand> TlsTransform::errand() {
  if (!factory_->accepts() || failure_ != 0 || held_.empty()) return nullptr;
  if (phase_ == Phase::fresh) begin();
  errand_ = std::make_shared<TlsErrand>(factory_, held_, held_size_);
  leave_thread(ssl_.get());
  errand_->take(std::move(ssl_));
  held_.clear(), held_size_ = 0;
  return errand_;
}

/// What the errand has done counts as done here.
void TlsTransform::take_in_errand() {
  const std::shared_ptr<TlsErrand> errand = std::exchange(errand_, nullptr);
  ssl_ = errand->give_back();
  come_to_thread(ssl_.get());
  problem_ = errand->problem();
  const std::span<const std::byte> records = errand->records();
  if (!records.empty() && !append(records.data(), records.size())) throw std::bad_alloc();
  if (failure_ == 0) failure_ = errand->failure();
  if (failure_ == 0 && errand->has_agreed()) open();
  const std::span<const std::byte> rest = errand->rest();
  if (rest.empty()) return;
  SegmentQueue behind;
  while (!held_.empty()) {
    behind.push_back(std::move(held_.front()));
    held_.pop_front();
  }
  BufferRef kept = make_buffer(rest.size());
  std::memcpy(kept->data(), rest.data(), rest.size());
  const std::byte* const data = kept->data();
  held_.push_back(Segment{std::move(kept), {data, rest.size()}});
  held_size_ += rest.size();
  while (!behind.empty()) {
    held_.push_back(std::move(behind.front()));
    behind.pop_front();
  }
}

Failure TlsTransform::work(Inbox& inbox) {
  if (errand_ != nullptr) {
    take_in_errand();
    if (failure_ == 0 && phase_ == Phase::shaking && held_.empty() && !wire_ended_) return 0;
  } else if (failure_ == 0 && phase_ == Phase::fresh) {
    begin();
  }
  while (failure_ == 0 && phase_ == Phase::shaking) {
    const bool input = !held_.empty();
    std::size_t left = 0;
    {
      const Call call(*this, input ? held_.front().data() : nullptr,
                      input ? held_.front().size() : 0);
      const int result = ::SSL_do_handshake(ssl_.get());
      left = Call::left();
      if (result == 1) {
        open();
      } else if (const int error = ::SSL_get_error(ssl_.get(), result);
                 error != SSL_ERROR_WANT_READ) {
        failure_ = failed(ssl_.get(), error);
      }
    }
    if (input) {
      held_size_ -= held_.front().size() - left;
      held_.front().advance(held_.front().size() - left);
      if (left == 0) held_.pop_front();
    }
    if (phase_ == Phase::open) break;
    if (held_.empty()) {
      if (failure_ == 0 && wire_ended_) failure_ = ECONNABORTED;
      if (failure_ == 0) return 0;
    }
  }
  if (failure_ == 0) return work_behind(inbox);
  phase_ = Phase::failed;
  held_.clear(), held_size_ = 0;
  return failure_;
}

/// What came behind the handshake, which has succeeded whatever that is.
Failure TlsTransform::work_behind(Inbox& inbox) {
  Failure failure = 0;
  while (failure == 0 && !held_.empty()) {
    const Segment next = std::move(held_.front());
    held_.pop_front();
    held_size_ -= next.size();
    failure = decrypt(next.data(), next.size(), inbox);
  }
  if (failure == 0 && wire_ended_) failure = receive_end(inbox);
  if (failure != 0) held_.clear(), held_size_ = 0;
  return failure;
}

void TlsTransform::throw_failure() const {
  std::string what = "weir: the TLS handshake";
  if (!peer_.empty()) what += " with " + peer_;
  what += " failed";
  if (problem_.empty()) throw std::system_error(code_of(failure_), what);
  throw std::system_error(code_of(failure_), what + ", verifying the certificate: " + problem_);
}

void TlsTransform::over(Failure failure) noexcept {
  if (failure_ == 0 && phase_ != Phase::open) failure_ = failure;
  news.set();
}

// ---- from the wire ------------------------------------------------------------------------------

Failure TlsTransform::receive(BufferRef buffer, const std::byte* data, std::size_t size,
                              Inbox& inbox) {
  if (done()) return held_.empty() ? decrypt(data, size, inbox) : EPROTO;
  if (failure_ != 0) return 0;
  held_.push_back(Segment{std::move(buffer), {data, size}});
  held_size_ += size;
  news.set();
  return 0;
}

Failure TlsTransform::receive_end(Inbox& inbox) {
  if (!done()) {
    wire_ended_ = true;
    news.set();
    return 0;
  }
  if (!peer_said_all_ && !factory_->allows_truncation()) return ECONNABORTED;
  inbox.end();
  return 0;
}

Failure TlsTransform::decrypt(const std::byte* data, std::size_t size, Inbox& inbox) {
  if (peer_said_all_) return 0;
  const Call call(*this, data, size);
  // There is never more to come out than has gone in.
  std::size_t most = inside_ + size;
  for (;;) {
    BufferRef plain = make_buffer(std::clamp(most, kOverhead, kBulkBuffer));
    const std::size_t room = plain->capacity();
    std::size_t count = 0;
    bool ok = true;
    bool more = true;  // to ask OpenSSL once too often costs it a buffer
    while (more && count < room) {
      std::size_t part = 0;
      ok = ::SSL_read_ex(ssl_.get(), plain->data() + count, room - count, &part) == 1;
      count += part;
      if (part > 0) messages_ = 0;
      more = ok && (Call::left() > 0 || ::SSL_has_pending(ssl_.get()) == 1);
    }
    const int error = ok ? SSL_ERROR_NONE : ::SSL_get_error(ssl_.get(), 0);
    if (count > 0) {
      most -= std::min(most, count);
      if (count < room / 4) {
        // What is little must not pin much.
        BufferRef small = make_buffer(count);
        std::memcpy(small->data(), plain->data(), count);
        plain = std::move(small);
      }
      const std::byte* from = plain->data();
      inbox.push(std::move(plain), from, count);
    }
    if (more) continue;
    inside_ = ::SSL_has_pending(ssl_.get()) == 1 ? std::min(most, kMostInside) : 0;
    switch (error) {
      case SSL_ERROR_NONE:
        return 0;
      case SSL_ERROR_WANT_READ:
        return messages_ < kMostMessages ? 0 : EPROTO;
      case SSL_ERROR_ZERO_RETURN:
        peer_said_all_ = true;
        inbox.end();
        return 0;
      default:
        return failed(ssl_.get(), error);
    }
  }
}

// ---- to the wire --------------------------------------------------------------------------------

bool TlsTransform::append(const std::byte* data, std::size_t size) noexcept {
  try {
    if (!filling_ || filling_->capacity() - filled_ < size) {
      BufferRef next = make_buffer(std::max(size, expected_));
      own_.push_back(Segment{next, {next->data(), 0}});
      filling_ = std::move(next);
      filled_ = 0;
    }
    std::memcpy(filling_->data() + filled_, data, size);
    own_.back().slice.size += size;
    filled_ += size;
    own_size_ += size;
    return true;
  } catch (...) {
    no_memory_ = true;
    return false;
  }
}

void TlsTransform::move_own(SegmentQueue& wire) {
  filling_.reset();
  while (!own_.empty()) {
    wire.push_back(Segment(own_.front()));
    own_size_ -= own_.front().size();
    own_.pop_front();
  }
}

void TlsTransform::encrypt(const void* data, std::size_t size) {
  std::size_t written = 0;
  const bool ok = ::SSL_write_ex(ssl_.get(), data, size, &written) == 1;
  if (ok && written == size) return;
  // Writing never waits.
  throw Broken{failed(ssl_.get(), ok ? SSL_ERROR_SSL : ::SSL_get_error(ssl_.get(), 0))};
}

/// Small messages share a record.
std::size_t TlsTransform::send(std::span<const Slice> plain, bool ending, SegmentQueue& wire) {
  std::size_t used = 0;
  if (done() && failure_ == 0) {
    const Call call(*this);
    std::size_t total = 0;
    for (const Slice& slice : plain) total += slice.size;
    total = std::min(total, kMostAtOnce);
    const std::size_t records = total / kRecord + 1;
    expected_ = total > kBulkBuffer / 8 ? kBulkBuffer : total + records * kOverhead;
    alignas(64) static thread_local unsigned char together[kRecord];
    std::size_t gathered = 0;
    for (Slice slice : plain) {
      const auto* data = static_cast<const std::byte*>(slice.data);
      std::size_t left = std::min(slice.size, total - used);
      used += left;
      while (left > 0) {
        const std::size_t part = std::min(left, kRecord - gathered);
        const bool alone = gathered == 0 && (part == kRecord || used == total);
        if (alone) {
          encrypt(data, part);
        } else {
          std::memcpy(together + gathered, data, part);
          gathered += part;
          if (gathered == kRecord) encrypt(together, std::exchange(gathered, 0));
        }
        data += part;
        left -= part;
      }
    }
    if (gathered > 0) encrypt(together, gathered);
    expected_ = 0;
    if (ending && !std::exchange(said_all_, true)) (void)::SSL_shutdown(ssl_.get());
  }
  move_own(wire);
  return used;
}

// ---- what was agreed on -------------------------------------------------------------------------

TlsInfo TlsTransform::info() const {
  SSL* ssl = ssl_.get();
  TlsInfo info;
  info.version = ::SSL_get_version(ssl);
  info.cipher = ::SSL_get_cipher_name(ssl);
  const unsigned char* protocol = nullptr;
  unsigned size = 0;
  ::SSL_get0_alpn_selected(ssl, &protocol, &size);
  if (size > 0) info.alpn.assign(reinterpret_cast<const char*>(protocol), size);
  const char* name = ::SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
  if (name != nullptr) info.server_name = name;
  info.resumed = ::SSL_session_reused(ssl) == 1;
  const X509Pointer certificate(::SSL_get1_peer_certificate(ssl));
  if (certificate != nullptr) {
    info.peer_subject = subject_of(certificate.get());
    info.peer_names = names_of(certificate.get());
  }
  forget_errors();
  return info;
}

}  // namespace weir::detail
