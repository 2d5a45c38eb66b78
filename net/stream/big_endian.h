#pragma once

#include <weir/net/stream/reading.h>

#include <cerrno>
#include <concepts>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

namespace weir {

namespace detail {

template <class T>
concept WireInteger = std::integral<T> && !std::same_as<T, bool> && sizeof(T) <= 8;

template <WireInteger T>
[[nodiscard]] T from_big(const std::byte* bytes) noexcept {
  std::make_unsigned_t<T> value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    value = static_cast<std::make_unsigned_t<T>>((std::uint64_t{value} << 8) |
                                                 std::to_integer<unsigned>(bytes[i]));
  }
  return static_cast<T>(value);
}

/// See `read_big`.
template <WireInteger T>
class [[nodiscard("co_await it")]] ReadBigAwaiter {
 public:
  static constexpr char kWaitsFor[] = "read_big";

  explicit ReadBigAwaiter(Inbox* of) noexcept : bytes_(of, sizeof(T)) {}

  bool await_ready() { return bytes_.await_ready(); }
  void await_suspend(std::coroutine_handle<> handle) { bytes_.await_suspend(handle); }
  T await_resume() {
    const Chunk chunk = bytes_.await_resume();
    if (!chunk) throw_failure(ECONNABORTED);
    return from_big<T>(chunk.data());
  }
  [[nodiscard]] Outcome<T> outcome() {
    const Outcome<Chunk> read = bytes_.outcome();
    if (read.error) return {read.error, T{}};
    if (!read.value) return {code_of(ECONNABORTED), T{}};
    return {{}, from_big<T>(read.value.data())};
  }

 private:
  ReadExactlyAwaiter bytes_;
};

template <class To, WireInteger T>
void append_big_to(To& to, T value) {
  const auto bits = static_cast<std::make_unsigned_t<T>>(value);
  for (std::size_t i = sizeof(T); i-- > 0;) {
    to.push_back(static_cast<typename To::value_type>((std::uint64_t{bits} >> (8 * i)) & 0xff));
  }
}

}  // namespace detail

/// Appends an integer in network order (most significant byte first): as many bytes as its type
/// has, which is best named: `append_big<std::uint32_t>(frame, text.size())`. Throws
/// `std::bad_alloc`.
template <detail::WireInteger T>
void append_big(std::string& to, T value) {
  detail::append_big_to(to, value);
}
template <detail::WireInteger T>
void append_big(std::vector<std::byte>& to, T value) {
  detail::append_big_to(to, value);
}

}  // namespace weir
