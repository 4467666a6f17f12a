#include "plugins/host/elf_symbols.h"

#include <elf.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "core/contract/error.h"

namespace strata {

constexpr uint64_t kMaxImage = uint64_t{4} << 30;  // bytes that a library may occupy when loaded

#if defined(__x86_64__)
constexpr uint16_t kMachine = EM_X86_64;
#elif defined(__aarch64__)
constexpr uint16_t kMachine = EM_AARCH64;
#else
constexpr uint16_t kMachine = EM_NONE;
#endif

void ElfFile::damaged(const std::string& what) const {
  throw Error(path_ + ": cut or damaged: " + what + "; build or copy it again");
}

std::string_view ElfFile::range(uint64_t offset, uint64_t size, const char* what) const {
  if (offset > bytes_.size() || size > bytes_.size() - offset)
    damaged(std::string(what) + " ends at byte " + std::to_string(offset) + " + " +
            std::to_string(size) + ", the file has " + std::to_string(bytes_.size()));
  return bytes_.substr(offset, size);
}

template <class T>
T ElfFile::read(uint64_t offset, const char* what) const {
  T value;
  std::memcpy(&value, range(offset, sizeof(T), what).data(), sizeof(T));
  return value;
}

std::string_view ElfFile::at(uint64_t address, uint64_t size) const {
  for (const Segment& s : segments_)
    if (address >= s.address && address - s.address <= s.size &&
        size <= s.size - (address - s.address))
      return bytes_.substr(s.offset + (address - s.address), size);
  damaged("address " + std::to_string(address) + " is not in the file");
}

ElfFile::ElfFile(std::string_view bytes, std::string path) : bytes_(bytes), path_(std::move(path)) {
  if (bytes_.size() < SELFMAG || bytes_.substr(0, SELFMAG) != ELFMAG)
    throw Error(path_ + ": not an ELF file; a plugin is a shared library that " +
                "strata_add_layer() builds");
  const auto header = read<Elf64_Ehdr>(0, "the ELF header");
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB ||
      header.e_machine != kMachine)
    throw Error(path_ + ": an ELF file for another machine; rebuild the plugin here");
  if (header.e_type != ET_DYN)
    throw Error(path_ + ": not a plugin: an ELF file, but no shared library; build it with " +
                "strata_add_layer()");
  if (header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phnum == 0)
    damaged("its program headers have a wrong size");
  if (header.e_shnum > 0 && header.e_shentsize != sizeof(Elf64_Shdr))
    damaged("its section headers have a wrong size");
  range(header.e_shoff, uint64_t{header.e_shnum} * sizeof(Elf64_Shdr), "the section table");
  read_segments();
}

void ElfFile::read_segments() {
  const auto header = read<Elf64_Ehdr>(0, "the ELF header");
  const uint64_t count = header.e_phnum;
  range(header.e_phoff, count * sizeof(Elf64_Phdr), "the program header table");
  std::string_view dynamic;
  std::vector<std::string_view> notes;
  uint64_t end = 0;
  for (uint64_t i = 0; i < count; ++i) {
    const auto p =
        read<Elf64_Phdr>(header.e_phoff + i * sizeof(Elf64_Phdr), "the program header table");
    const std::string_view content = range(p.p_offset, p.p_filesz, "a segment");
    if (p.p_type == PT_DYNAMIC) dynamic = content;
    if (p.p_type == PT_NOTE) notes.push_back(content);
    if (p.p_type != PT_LOAD) continue;
    if (p.p_filesz > p.p_memsz || p.p_vaddr < end || p.p_memsz > kMaxImage ||
        p.p_vaddr > kMaxImage || (p.p_align & (p.p_align - 1)) != 0 ||
        (p.p_align > 1 && (p.p_vaddr - p.p_offset) % p.p_align != 0))
      damaged("segment " + std::to_string(i) + " cannot be placed in memory");
    end = p.p_vaddr + p.p_memsz;
    segments_.push_back({p.p_vaddr, p.p_offset, p.p_filesz});
  }
  if (segments_.empty()) damaged("it has nothing to load");
  if (dynamic.empty()) damaged("it has no dynamic table");
  for (const std::string_view n : notes) read_notes(n);
  read_dynamic(dynamic);
}

void ElfFile::read_dynamic(std::string_view table) {
  std::map<int64_t, uint64_t> entry;
  bool ended = false;
  for (size_t i = 0; !ended && i + sizeof(Elf64_Dyn) <= table.size(); i += sizeof(Elf64_Dyn)) {
    Elf64_Dyn d;
    std::memcpy(&d, table.data() + i, sizeof d);
    ended = d.d_tag == DT_NULL;
    if (!ended) entry[d.d_tag] = d.d_un.d_val;
  }
  if (!ended) damaged("its dynamic table has no end");
  auto has = [&](int64_t tag) { return entry.count(tag) > 0; };
  if (!has(DT_SYMTAB) || !has(DT_STRTAB) || !has(DT_STRSZ)) damaged("it has no symbol table");
  if (has(DT_SYMENT) && entry[DT_SYMENT] != sizeof(Elf64_Sym))
    damaged("its symbols have a wrong size");
  // What the system's loader reads and runs must lie in the file.
  for (const auto& [address, size] : {std::pair{DT_RELA, DT_RELASZ}, {DT_JMPREL, DT_PLTRELSZ}})
    if (has(address)) at(entry[address], has(size) ? entry[size] : 0);
  for (const auto& [address, size] :
       {std::pair{DT_INIT_ARRAY, DT_INIT_ARRAYSZ}, {DT_FINI_ARRAY, DT_FINI_ARRAYSZ}})
    if (has(address)) at(entry[address], has(size) ? entry[size] : 0);
  const std::string_view strings = at(entry[DT_STRTAB], entry[DT_STRSZ]);
  uint64_t count = 0;
  if (has(DT_GNU_HASH)) {
    count = gnu_symbol_count(entry[DT_GNU_HASH]);
  } else if (has(DT_HASH)) {
    uint32_t chains;
    std::memcpy(&chains, at(entry[DT_HASH] + 4, 4).data(), 4);
    count = chains;
  } else {
    damaged("it has no hash table of its symbols");
  }
  read_symbols(entry[DT_SYMTAB], count, strings);
}

// The GNU hash table holds no count: it is one past the end of the last chain.
uint64_t ElfFile::gnu_symbol_count(uint64_t address) const {
  uint32_t head[4];  // buckets, first symbol, bloom words, bloom shift
  std::memcpy(head, at(address, sizeof head).data(), sizeof head);
  const uint64_t buckets = address + sizeof head + uint64_t{head[2]} * 8;
  const std::string_view table = at(buckets, uint64_t{head[0]} * 4);
  uint32_t last = 0;
  for (size_t i = 0; i < table.size(); i += 4) {
    uint32_t first;
    std::memcpy(&first, table.data() + i, 4);
    last = std::max(last, first);
  }
  if (last < head[1]) return head[1];
  const uint64_t chains = buckets + table.size();
  for (uint64_t i = last;; ++i) {
    uint32_t hash;
    std::memcpy(&hash, at(chains + (i - head[1]) * 4, 4).data(), 4);
    if (hash & 1) return i + 1;
  }
}

void ElfFile::read_symbols(uint64_t symtab, uint64_t count, std::string_view strings) {
  if (count > bytes_.size() / sizeof(Elf64_Sym)) damaged("it counts more symbols than it holds");
  const std::string_view table = at(symtab, count * sizeof(Elf64_Sym));
  for (uint64_t i = 0; i < count; ++i) {
    Elf64_Sym s;
    std::memcpy(&s, table.data() + i * sizeof s, sizeof s);
    if (s.st_name >= strings.size() && s.st_name != 0) damaged("a symbol's name is outside");
    const int binding = ELF64_ST_BIND(s.st_info), visibility = ELF64_ST_VISIBILITY(s.st_other);
    if (binding == STB_LOCAL || visibility == STV_HIDDEN) continue;
    const std::string_view rest = strings.substr(s.st_name);
    const size_t length = rest.find('\0');
    if (length == std::string_view::npos) damaged("a symbol's name has no end");
    std::string name(rest.substr(0, length));
    if (s.st_shndx == SHN_UNDEF)
      imports_.push_back(std::move(name));
    else
      symbols_.push_back({std::move(name), s.st_value, s.st_size});
  }
}

bool ElfFile::imports(std::string_view part) const {
  return std::any_of(imports_.begin(), imports_.end(),
                     [&](const std::string& name) { return name.find(part) != std::string::npos; });
}

void ElfFile::read_notes(std::string_view notes) {
  while (notes.size() >= sizeof(Elf64_Nhdr)) {
    Elf64_Nhdr n;
    std::memcpy(&n, notes.data(), sizeof n);
    const uint64_t name = sizeof n, text = name + (uint64_t{n.n_namesz} + 3) / 4 * 4;
    const uint64_t end = text + (uint64_t{n.n_descsz} + 3) / 4 * 4;
    if (text + n.n_descsz > notes.size()) return;
    if (n.n_type == NT_GNU_BUILD_ID &&
        notes.substr(name, n.n_namesz) == std::string_view("GNU", 4)) {
      build_id_.clear();
      for (const unsigned char c : notes.substr(text, n.n_descsz)) {
        build_id_ += "0123456789abcdef"[c >> 4];
        build_id_ += "0123456789abcdef"[c & 15];
      }
    }
    if (end >= notes.size()) return;
    notes.remove_prefix(end);
  }
}

}  // namespace strata
