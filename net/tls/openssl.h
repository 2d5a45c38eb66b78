#pragma once

#include <weir/net/stream/failure.h>

#include <openssl/ssl.h>

#include <memory>
#include <string>
#include <vector>

namespace weir::detail {

template <auto Function>
struct Freeing {
  template <class T>
  void operator()(T* object) const noexcept {
    Function(object);
  }
};
using SslPointer = std::unique_ptr<SSL, Freeing<SSL_free>>;
using SslContextPointer = std::unique_ptr<SSL_CTX, Freeing<SSL_CTX_free>>;
using SessionPointer = std::unique_ptr<SSL_SESSION, Freeing<SSL_SESSION_free>>;
using X509Pointer = std::unique_ptr<X509, Freeing<X509_free>>;
using KeyPointer = std::unique_ptr<EVP_PKEY, Freeing<EVP_PKEY_free>>;
using StorePointer = std::unique_ptr<X509_STORE, Freeing<X509_STORE_free>>;
using BioPointer = std::unique_ptr<BIO, Freeing<BIO_free>>;

/// The queue of errors is the thread's: one that is left over would be taken for the next call's.
void forget_errors() noexcept;
/// What OpenSSL says went wrong, as a failure of `tls_category`; its queue is empty then.
[[nodiscard]] Failure take_openssl_failure() noexcept;
/// A verification's X509_V_ERR_….
[[nodiscard]] Failure verification_failure(long problem) noexcept;
/// Throws `std::system_error` with what OpenSSL says, after `what`.
[[noreturn]] void throw_openssl_failure(const std::string& what);
/// The names that a certificate is for: DNS names, then addresses.
[[nodiscard]] std::vector<std::string> names_of(const X509* certificate);
[[nodiscard]] std::string subject_of(const X509* certificate);

}  // namespace weir::detail
