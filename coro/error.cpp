#include <weir/coro/error.h>

#include <string>

namespace weir {
namespace {

class Category final : public std::error_category {
 public:
  [[nodiscard]] const char* name() const noexcept override { return "weir"; }

  [[nodiscard]] std::string message(int code) const override {
    switch (static_cast<errc>(code)) {
      case errc::deadline:
        return "the deadline has passed";
      case errc::idle:
        return "the connection was idle for too long";
      case errc::unresponsive:
        return "the peer does not respond";
      case errc::not_found:
        return "the name is not known";
      case errc::try_again:
        return "the name service did not answer; try again";
      case errc::closed_here:
        return "closed from this side";
    }
    return "unknown error " + std::to_string(code);
  }

  [[nodiscard]] std::error_condition default_error_condition(int code) const noexcept override {
    switch (static_cast<errc>(code)) {
      case errc::deadline:
      case errc::idle:
      case errc::unresponsive:
        return std::errc::timed_out;
      case errc::closed_here:
        return std::errc::operation_canceled;
      case errc::not_found:
      case errc::try_again:
        break;
    }
    return {code, *this};
  }
};

}  // namespace

const std::error_category& error_category() noexcept {
  static const Category category;
  return category;
}

}  // namespace weir
