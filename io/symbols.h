#pragma once

#include <link.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace weir::detail {

/// Names of the functions of this process, from the dynamic linker and from the tables of symbols
/// (`.symtab`) of its program and libraries, unless those were stripped. It reads the files that it
/// needs. On one thread.
class Symbols {
 public:
  /// "function (module+0x1f)", "module+0x1f" without a name, the latter as addr2line takes it; the
  /// address alone outside of any module. Throws `std::bad_alloc`.
  [[nodiscard]] std::string describe(std::uintptr_t address);

 private:
  struct Table {
    std::vector<ElfW(Sym)> functions;
    std::string names;
  };
  const Table& table_of(const std::string& path);
  [[nodiscard]] static const char* name_in(const Table& table, std::uintptr_t address) noexcept;

  std::map<std::string, Table> tables_;
};

}  // namespace weir::detail
