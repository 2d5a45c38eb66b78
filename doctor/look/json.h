#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace look {

/// A JSON text (RFC 8259) as a value: no more of it than the answers of an inspector take.
class Json {
 public:
  using Items = std::vector<Json>;
  using Members = std::vector<std::pair<std::string, Json>>;

  Json() = default;                                                  // null
  Json(bool value) : value_(value) {}                                // NOLINT: as it is written
  Json(double value) : value_(value) {}                              // NOLINT: likewise
  Json(std::uint64_t value) : value_(static_cast<double>(value)) {}  // NOLINT: likewise
  Json(const char* text) : value_(std::string(text)) {}              // NOLINT: likewise
  Json(std::string text) : value_(std::move(text)) {}                // NOLINT: likewise
  Json(Items items) : value_(std::move(items)) {}                    // NOLINT: likewise
  Json(Members members) : value_(std::move(members)) {}              // NOLINT: likewise

  /// Throws `std::runtime_error`, which says where, for what is no JSON, and for what is nested
  /// deeper than 1,000: tasks that await one another five hundred deep.
  static Json parse(std::string_view text);

  [[nodiscard]] bool is_array() const noexcept { return std::holds_alternative<Items>(value_); }
  [[nodiscard]] bool is_object() const noexcept { return std::holds_alternative<Members>(value_); }
  [[nodiscard]] bool is_null() const noexcept {
    return std::holds_alternative<std::monostate>(value_);
  }

  /// What it is not is empty: "", 0, false, no items, null.
  [[nodiscard]] std::string text() const;
  [[nodiscard]] std::uint64_t number() const noexcept;
  [[nodiscard]] bool yes() const noexcept;
  [[nodiscard]] const Items& items() const noexcept;
  [[nodiscard]] const Json& operator[](std::string_view name) const noexcept;

  /// An object with one more member, unless that is null.
  [[nodiscard]] Json with(std::string name, const Json& value) const;

  /// As text; each item of an outer array or object on a line of its own.
  [[nodiscard]] std::string dump() const;

 private:
  void dump(std::string& to, int depth) const;

  std::variant<std::monostate, bool, double, std::string, Items, Members> value_;
};

/// For a terminal, whose cursor nothing may move: names come from a program's peers, too.
std::string harmless(std::string_view text);

}  // namespace look
