#include <weir/net/tls/conversation.h>

#include <openssl/err.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

namespace weir::detail {
namespace {

/// What the thread's BIO does at the moment. Reading and writing never wait.
struct Current {
  Conversation* of = nullptr;
  const std::byte* input = nullptr;
  std::size_t size = 0;
};
constinit thread_local Current current;

}  // namespace

/// OpenSSL's, which must not throw and resume nobody. On the thread that works on the connection.
struct Callbacks {
  static int read(BIO* bio, char* to, std::size_t size, std::size_t* count) {
    BIO_clear_retry_flags(bio);
    const bool flooded = current.of->messages_ >= Conversation::kMostMessages;
    *count = flooded ? 0 : std::min(size, current.size);
    if (*count == 0) {
      BIO_set_retry_read(bio);
      return 0;
    }
    std::memcpy(to, current.input, *count);
    current.input += *count;
    current.size -= *count;
    return 1;
  }
  static int write(BIO* bio, const char* data, std::size_t size, std::size_t* count) {
    BIO_clear_retry_flags(bio);
    *count = size;
    return current.of->append(reinterpret_cast<const std::byte*>(data), size) ? 1 : 0;
  }
  static long control(BIO* /*bio*/, int command, long /*number*/, void* /*pointer*/) {
    return command == BIO_CTRL_FLUSH ? 1 : 0;
  }

  static BIO* bio() {
    static BIO_METHOD* const method = [] {
      BIO_METHOD* made = ::BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "weir");
      if (made == nullptr) throw std::bad_alloc();
      ::BIO_meth_set_read_ex(made, &read);
      ::BIO_meth_set_write_ex(made, &write);
      ::BIO_meth_set_ctrl(made, &control);
      return made;
    }();
    thread_local const BioPointer bio([] {
      BIO* made = ::BIO_new(method);
      if (made == nullptr) throw std::bad_alloc();
      ::BIO_set_init(made, 1);
      return made;
    }());
    return bio.get();
  }

  /// A message of the protocol's own, once the handshake is done.
  static void info(const SSL* /*ssl*/, int where, int /*result*/) {
    Conversation* of = current.of;
    if ((where & SSL_CB_LOOP) == 0 || of == nullptr || !of->agreed_) return;
    if (of->messages_ < Conversation::kMostMessages) ++of->messages_;
  }

  static int verify(int ok, X509_STORE_CTX* store) {
    if (ok == 1 || current.of == nullptr || !current.of->problem_.empty()) return ok;
    try {
      const int problem = ::X509_STORE_CTX_get_error(store);
      std::string text = ::X509_verify_cert_error_string(problem);
      if (const X509* certificate = ::X509_STORE_CTX_get_current_cert(store)) {
        text += " (the certificate is that of " + subject_of(certificate);
        const char* before = ", for ";
        for (const std::string& name : names_of(certificate)) {
          text += std::exchange(before, ", ") + name;
        }
        text += ")";
      }
      current.of->problem_ = std::move(text);
    } catch (...) {  // short of memory: the reason alone
    }
    return ok;
  }

  static int choose_name(SSL* ssl, int* /*alert*/, void* /*data*/) {
    const char* name = ::SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    if (name == nullptr || current.of == nullptr) return SSL_TLSEXT_ERR_NOACK;
    try {
      const auto contexts = current.of->contexts();
      if (SSL_CTX* other = contexts->find(name)) ::SSL_set_SSL_CTX(ssl, other);
      return SSL_TLSEXT_ERR_OK;
    } catch (...) {
      return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
  }

  static int choose_protocol(SSL* /*ssl*/, const unsigned char** to, unsigned char* size,
                             const unsigned char* offered, unsigned offered_size, void* /*data*/) {
    if (current.of == nullptr) return SSL_TLSEXT_ERR_NOACK;
    const std::string& ours = current.of->factory_->protocols();
    if (ours.empty()) return SSL_TLSEXT_ERR_NOACK;
    unsigned char* chosen = nullptr;
    const int result =
        ::SSL_select_next_proto(&chosen, size, reinterpret_cast<const unsigned char*>(ours.data()),
                                static_cast<unsigned>(ours.size()), offered, offered_size);
    if (result != OPENSSL_NPN_NEGOTIATED) return SSL_TLSEXT_ERR_ALERT_FATAL;
    *to = chosen;
    return SSL_TLSEXT_ERR_OK;
  }

  static int use_ticket_key(SSL* ssl, unsigned char* name, unsigned char* iv,
                            EVP_CIPHER_CTX* cipher, EVP_MAC_CTX* mac, int makes) {
    if (current.of == nullptr) return -1;
    TicketKeys& keys = current.of->factory_->tickets();
    const int result = weir::detail::use_ticket_key(keys, name, iv, cipher, mac, makes == 1);
    // Each ticket of TLS 1.3 is used once: another follows.
    return result == 1 && makes == 0 && ::SSL_version(ssl) == TLS1_3_VERSION ? 2 : result;
  }

  static int new_session(SSL* /*ssl*/, SSL_SESSION* session) {
    if (current.of == nullptr) return 0;
    ::SSL_SESSION_up_ref(session);
    try {
      current.of->factory_->keep_session(current.of->peer_, SessionPointer(session));
    } catch (...) {  // short of memory: the next connection begins anew
    }
    return 0;  // OpenSSL's own reference stays its own
  }
};

void set_callbacks(SSL_CTX* context, bool server) {
  ::SSL_CTX_set_info_callback(context, &Callbacks::info);
  if (server) {
    SSL_CTX_set_tlsext_servername_callback(context, &Callbacks::choose_name);
    ::SSL_CTX_set_tlsext_ticket_key_evp_cb(context, &Callbacks::use_ticket_key);
    ::SSL_CTX_set_alpn_select_cb(context, &Callbacks::choose_protocol, nullptr);
  } else {
    ::SSL_CTX_sess_set_new_cb(context, &Callbacks::new_session);
  }
}

Conversation::Call::Call(Conversation& of, const std::byte* data, std::size_t size) noexcept {
  current = {&of, data, size};
  forget_errors();
}

Conversation::Call::~Call() { current = {}; }

std::size_t Conversation::Call::left() noexcept { return current.size; }

SSL_verify_cb Conversation::verifier() noexcept { return &Callbacks::verify; }

void Conversation::come_to_thread(SSL* ssl) {
  BIO* const bio = Callbacks::bio();
  ::BIO_up_ref(bio);  // one for both
  ::SSL_set_bio(ssl, bio, bio);
}

Failure Conversation::failed(SSL* ssl, int error) noexcept {
  if (std::exchange(no_memory_, false)) return ENOMEM;
  const bool reason = error == SSL_ERROR_SSL || error == SSL_ERROR_SYSCALL;
  if (!reason) return ECONNABORTED;
  const long problem = ::SSL_get_verify_result(ssl);
  if (ERR_GET_REASON(::ERR_peek_error()) == SSL_R_CERTIFICATE_VERIFY_FAILED &&
      problem != X509_V_OK) {
    forget_errors();
    return verification_failure(problem);
  }
  return take_openssl_failure();
}

}  // namespace weir::detail
