#include <weir/net/tls/context.h>
#include <weir/net/tls/openssl.h>

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

#include <cerrno>
#include <string>
#include <system_error>
#include <vector>

namespace weir {
namespace {

/// Numbers of the category: a library of OpenSSL's and its reason, or, from here on, what
/// verification found.
constexpr int kVerification = 0x1000000;
constexpr int kReasons = 0x10000;  // of each library

class Category final : public std::error_category {
 public:
  [[nodiscard]] const char* name() const noexcept override { return "tls"; }
  [[nodiscard]] std::string message(int code) const override {
    if (code >= kVerification) return ::X509_verify_cert_error_string(code - kVerification);
    const char* reason = ::ERR_reason_error_string(ERR_PACK(code / kReasons, 0, code % kReasons));
    return reason != nullptr ? reason : "TLS error " + std::to_string(code);
  }
  [[nodiscard]] std::error_condition default_error_condition(int /*code*/) const noexcept override {
    return std::errc::protocol_error;
  }
};

}  // namespace

const std::error_category& tls_category() noexcept {
  static const Category category;
  return category;
}

namespace detail {

void forget_errors() noexcept {
  // To clear an empty queue goes through all of it.
  if (::ERR_peek_error() != 0) ::ERR_clear_error();
}

Failure take_openssl_failure() noexcept {
  // The first says what was wrong, the later ones who gave up for that.
  const unsigned long error = ::ERR_get_error();
  ::ERR_clear_error();
  if (error == 0) return ECONNABORTED;
  if (ERR_GET_REASON(error) == ERR_R_MALLOC_FAILURE) return ENOMEM;
  return kTransformFailure - (ERR_GET_LIB(error) * kReasons + ERR_GET_REASON(error) % kReasons);
}

Failure verification_failure(long problem) noexcept {
  return kTransformFailure - (kVerification + static_cast<int>(problem));
}

void throw_openssl_failure(const std::string& what) {
  throw std::system_error(code_of(take_openssl_failure()), what);
}

std::vector<std::string> names_of(const X509* certificate) {
  std::vector<std::string> names;
  auto* list = static_cast<GENERAL_NAMES*>(
      ::X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr));
  const std::unique_ptr<GENERAL_NAMES, Freeing<GENERAL_NAMES_free>> owner(list);
  for (int i = 0; list != nullptr && i < sk_GENERAL_NAME_num(list); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(list, i);
    const bool address = name->type == GEN_IPADD;
    if (name->type != GEN_DNS && !address) continue;
    const ASN1_STRING* text = address ? name->d.iPAddress : name->d.dNSName;
    const unsigned char* data = ::ASN1_STRING_get0_data(text);
    const auto size = static_cast<std::size_t>(::ASN1_STRING_length(text));
    char shown[INET6_ADDRSTRLEN] = {};
    if (!address) {
      names.emplace_back(reinterpret_cast<const char*>(data), size);
    } else if ((size == 4 || size == 16) &&
               ::inet_ntop(size == 4 ? AF_INET : AF_INET6, data, shown, sizeof(shown)) != nullptr) {
      names.emplace_back(shown);
    }
  }
  return names;
}

std::string subject_of(const X509* certificate) {
  const BioPointer text(::BIO_new(::BIO_s_mem()));
  if (text == nullptr) return {};
  ::X509_NAME_print_ex(text.get(), ::X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253);
  char* data = nullptr;
  const long size = BIO_get_mem_data(text.get(), &data);
  return {data, static_cast<std::size_t>(size)};
}

}  // namespace detail
}  // namespace weir
