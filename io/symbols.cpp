#include <weir/core/survey.h>
#include <weir/io/symbols.h>

#include <cxxabi.h>
#include <dlfcn.h>

#include <array>
#include <charconv>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>

namespace weir::detail {
namespace {

constexpr std::size_t kLongestName = 160;
/// Of a table of symbols: what is larger is left alone.
constexpr std::size_t kLargest = std::size_t{64} << 20;

std::string demangled(const char* name) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> text(
      abi::__cxa_demangle(name, nullptr, nullptr, &status), std::free);
  std::string readable = status == 0 && text != nullptr ? text.get() : name;
  if (const auto clone = readable.find(" [clone"); clone != std::string::npos) {
    readable.resize(clone);  // of GCC: a coroutine's body, as a rule
  }
  if (readable.find("operator ") == std::string::npos) readable = function_name(readable.c_str());
  if (readable.size() > kLongestName) readable = readable.substr(0, kLongestName) + "…";
  return readable;
}

std::string hex(std::uintptr_t number) {
  std::array<char, 20> digits{};
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), number, 16);
  return "0x" + std::string(digits.data(), end.ptr);
}

bool read_at(std::ifstream& file, std::size_t offset, void* to, std::size_t size) {
  file.seekg(static_cast<std::streamoff>(offset));
  return static_cast<bool>(file.read(static_cast<char*>(to), static_cast<std::streamsize>(size)));
}

}  // namespace

/// See elf(5).
const Symbols::Table& Symbols::table_of(const std::string& path) {
  const auto [at, is_new] = tables_.try_emplace(path);
  Table& table = at->second;
  std::ifstream file;
  if (is_new) file.open(path, std::ios::binary);
  ElfW(Ehdr) header{};
  if (!file.is_open() || !read_at(file, 0, &header, sizeof header) ||
      std::memcmp(static_cast<const void*>(header.e_ident), ELFMAG, SELFMAG) != 0 ||
      header.e_shentsize != sizeof(ElfW(Shdr))) {
    return table;
  }
  std::vector<ElfW(Shdr)> sections(header.e_shnum);
  if (!read_at(file, header.e_shoff, sections.data(), sections.size() * sizeof(ElfW(Shdr)))) {
    return table;
  }
  for (const ElfW(Shdr) & section : sections) {
    if (section.sh_type != SHT_SYMTAB || section.sh_link >= sections.size()) continue;
    const ElfW(Shdr)& names = sections[section.sh_link];
    if (section.sh_size > kLargest || names.sh_size > kLargest) continue;
    std::vector<ElfW(Sym)> symbols(section.sh_size / sizeof(ElfW(Sym)));
    table.names.resize(names.sh_size);
    if (!read_at(file, section.sh_offset, symbols.data(), symbols.size() * sizeof(ElfW(Sym))) ||
        !read_at(file, names.sh_offset, table.names.data(), table.names.size())) {
      break;
    }
    for (const ElfW(Sym) & symbol : symbols) {
      const bool is_function = (symbol.st_info & 0xf) == STT_FUNC && symbol.st_size > 0;
      if (is_function && symbol.st_name < table.names.size()) table.functions.push_back(symbol);
    }
    break;
  }
  return table;
}

const char* Symbols::name_in(const Table& table, std::uintptr_t address) noexcept {
  for (const ElfW(Sym) & symbol : table.functions) {
    if (address >= symbol.st_value && address - symbol.st_value < symbol.st_size) {
      return table.names.c_str() + symbol.st_name;
    }
  }
  return nullptr;
}

std::string Symbols::describe(std::uintptr_t address) {
  Dl_info found{};
  void* extra = nullptr;
  if (::dladdr1(reinterpret_cast<void*>(address), &found, &extra, RTLD_DL_LINKMAP) == 0 ||
      extra == nullptr) {
    return hex(address);
  }
  const auto* const module = static_cast<const link_map*>(extra);
  const bool is_program = module->l_name == nullptr || *module->l_name == '\0';
  const std::uintptr_t offset = address - module->l_addr;
  const char* name = name_in(table_of(is_program ? "/proc/self/exe" : module->l_name), offset);
  if (name == nullptr) name = found.dli_sname;
  std::string_view file = found.dli_fname == nullptr ? "?" : found.dli_fname;
  file.remove_prefix(file.rfind('/') + 1);
  const std::string place = std::string(file) + '+' + hex(offset);
  return name == nullptr ? place : demangled(name) + " (" + place + ')';
}

}  // namespace weir::detail
