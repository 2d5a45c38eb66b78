#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace weir {

/// Bytes that never change, for as many as want them: a copy counts (atomically) instead of
/// copying, and what one broadcasts to a thousand connections is there once. Copies may be used on
/// any thread; the last one, wherever it goes, frees the bytes. Connections keep one until the
/// kernel has what they were given.
class SharedBytes {
 public:
  /// No bytes.
  SharedBytes() noexcept = default;
  /// The string's bytes from where they are. Throws `std::bad_alloc` (one allocation).
  explicit SharedBytes(std::string bytes) {
    auto kept = std::make_shared<const std::string>(std::move(bytes));
    size_ = kept->size();
    const char* data = kept->data();
    bytes_ = std::shared_ptr<const char>(std::move(kept), data);
  }
  /// Bytes that are there to the end of the program, which nobody counts.
  [[nodiscard]] static SharedBytes of_static(std::string_view bytes) noexcept {
    SharedBytes shared;
    shared.bytes_ = std::shared_ptr<const char>(std::shared_ptr<void>(), bytes.data());
    shared.size_ = bytes.size();
    return shared;
  }

  [[nodiscard]] const char* data() const noexcept { return bytes_.get(); }
  [[nodiscard]] std::size_t size() const noexcept { return bytes_ == nullptr ? 0 : size_; }
  [[nodiscard]] bool empty() const noexcept { return size() == 0; }
  [[nodiscard]] std::string_view view() const noexcept { return {data(), size()}; }

 private:
  std::shared_ptr<const char> bytes_;
  std::size_t size_ = 0;
};

namespace detail {

/// What other threads send: a text, or bytes that are shared.
struct OtherMessage {
  OtherMessage() noexcept = default;
  OtherMessage(std::string&& bytes) noexcept : text(std::move(bytes)) {}    // NOLINT: either is one
  OtherMessage(SharedBytes&& bytes) noexcept : shared(std::move(bytes)) {}  // NOLINT: likewise

  [[nodiscard]] std::string_view view() const noexcept {
    return shared.empty() ? std::string_view(text) : shared.view();
  }
  [[nodiscard]] std::size_t size() const noexcept { return view().size(); }

  std::string text;
  SharedBytes shared;
};

}  // namespace detail

}  // namespace weir
