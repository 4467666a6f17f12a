// A bounds-checked reader of what a shared library exports (ELF64, .dynsym). It follows the program
// headers and the dynamic table, as the system's loader does, so it also reads stripped files;
// every offset, size and count is checked against the file before it is used. Format: System V ABI,
// chapters 4 and 5; DT_GNU_HASH as the GNU linker writes it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace strata {

struct ElfSymbol {
  std::string name;
  uint64_t address = 0;
  uint64_t size = 0;
};

class ElfFile {
 public:
  // `bytes` must outlive the object; `path` is for messages. Throws Error: "not an ELF file", "an
  // ELF file for another machine", "not a shared library", or "cut or damaged" with what is wrong.
  ElfFile(std::string_view bytes, std::string path);

  // The defined, exported symbols.
  const std::vector<ElfSymbol>& symbols() const { return symbols_; }
  // True when a symbol that must come from elsewhere has `part` in its name.
  bool imports(std::string_view part) const;
  // Of the linker's note, as hex; "" when there is none.
  const std::string& build_id() const { return build_id_; }
  // The bytes [address, address + size) of the loaded image that lie in the file. Throws Error when
  // they do not.
  std::string_view at(uint64_t address, uint64_t size) const;

 private:
  struct Segment {
    uint64_t address, offset, size;
  };
  [[noreturn]] void damaged(const std::string& what) const;
  std::string_view range(uint64_t offset, uint64_t size, const char* what) const;
  template <class T>
  T read(uint64_t offset, const char* what) const;
  void read_segments();
  void read_dynamic(std::string_view table);
  void read_notes(std::string_view notes);
  uint64_t gnu_symbol_count(uint64_t address) const;
  void read_symbols(uint64_t symtab, uint64_t count, std::string_view strings);

  std::string_view bytes_;
  std::string path_, build_id_;
  std::vector<Segment> segments_;
  std::vector<ElfSymbol> symbols_;
  std::vector<std::string> imports_;
};

}  // namespace strata
