#include "plugins/host/handshake.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "core/contract/plugin.h"
#include "core/io/sha256.h"
#include "plugins/host/elf_symbols.h"

namespace strata {
namespace {

namespace fs = std::filesystem;

constexpr uintmax_t kMaxFile = uintmax_t{1} << 30;

std::string read_whole(const std::string& path) {
  std::error_code failed;
  const fs::file_status status = fs::status(path, failed);
  if (!fs::exists(status)) throw Error(path + ": no such file or folder; name a plugin's .so");
  if (!fs::is_regular_file(status)) throw Error(path + ": not a file; name a plugin's .so");
  const uintmax_t size = fs::file_size(path, failed);
  if (failed || size > kMaxFile) throw Error(path + ": too large for a plugin, the limit is 1 GiB");
  std::ifstream in(path, std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(in), {}};
  if (!in && !in.eof()) throw Error(path + ": cannot be read; check its permissions");
  if (bytes.size() != size) throw Error(path + ": cannot be read; check its permissions");
  return bytes;
}

// strata_plugin_<major>_<minor>_<compiler>_<stdlib>
struct Entry {
  int major = 0, minor = 0;
  std::string compiler, stdlib;
};

bool is_entry(std::string_view symbol) { return symbol.starts_with(STRATA_PLUGIN_PREFIX); }

Entry parse_entry(std::string_view symbol, const std::string& path) {
  symbol.remove_prefix(std::strlen(STRATA_PLUGIN_PREFIX));
  Entry e;
  auto number = [&](int& value) {
    const auto [end, failed] = std::from_chars(symbol.data(), symbol.data() + symbol.size(), value);
    if (failed != std::errc{} || end == symbol.data() + symbol.size() || *end != '_')
      throw Error(path + ": cut or damaged: its entry names no ABI; build or copy it again");
    symbol.remove_prefix(size_t(end - symbol.data()) + 1);
  };
  number(e.major);
  number(e.minor);
  const size_t last = symbol.rfind('_');
  if (last == std::string_view::npos)
    throw Error(path + ": cut or damaged: its entry names no compiler; build or copy it again");
  e.compiler = symbol.substr(0, last);
  e.stdlib = symbol.substr(last + 1);
  return e;
}

void refuse_foreign(const std::string& symbol, const std::string& path) {
  const Entry theirs = parse_entry(symbol, path);
  const Entry ours = parse_entry(STRATA_PLUGIN_SYMBOL_NAME, path);
  auto abi = [](const Entry& e) { return std::to_string(e.major) + "." + std::to_string(e.minor); };
  const std::string remedy =
      "; rebuild it with cmake -DCMAKE_PREFIX_PATH=<this strata's build or install folder>";
  if (theirs.major != ours.major || theirs.minor > ours.minor)
    throw Error(path + ": built for ABI " + abi(theirs) + ", this strata has " + abi(ours) +
                remedy);
  if (theirs.compiler != ours.compiler)
    throw Error(path + ": built as '" + theirs.compiler + "', this strata as '" + ours.compiler +
                "' (compiler and sanitizers)" + remedy);
  if (theirs.stdlib != ours.stdlib)
    throw Error(path + ": built with standard library '" + theirs.stdlib + "', this strata with '" +
                ours.stdlib + "'" + remedy);
}

// strata_add_layer() ends a plugin with this line: the SHA-256 of everything before it. Stripping
// removes it, and then nothing is checked.
constexpr std::string_view kSeal = "\nstrata-seal:";
constexpr size_t kSealSize = kSeal.size() + 64 + 1;

bool check_seal(std::string_view bytes, const std::string& path) {
  if (bytes.size() < kSealSize) return false;
  const std::string_view seal = bytes.substr(bytes.size() - kSealSize);
  if (!seal.starts_with(kSeal)) return false;
  bytes.remove_suffix(kSealSize);
  if (seal.substr(kSeal.size(), 64) != sha256_hex(bytes))
    throw Error(path + ": cut or damaged: its content does not match its checksum; " +
                "build or copy it again");
  return true;
}

// The text of a fixed field; empty when it has no end or holds control characters.
template <size_t N>
std::string text_of(const char (&field)[N]) {
  const char* end = std::find(field, field + N, '\0');
  const bool plain =
      end != field + N && std::all_of(static_cast<const char*>(field), end,
                                      [](unsigned char c) { return c >= 0x20 && c < 0x7f; });
  return plain ? std::string(field, end) : std::string();
}

void read_card(const ElfFile& elf, const ElfSymbol& entry, PluginFile& file) {
  const std::string damaged =
      file.path + ": cut or damaged: its card is unreadable; build it again";
  if (entry.size < sizeof(PluginInfo)) throw Error(damaged);
  alignas(PluginInfo) char card[sizeof(PluginInfo)];
  std::memcpy(card, elf.at(entry.address, sizeof card).data(), sizeof card);
  const PluginInfo& info = *reinterpret_cast<const PluginInfo*>(card);
  file.name = text_of(info.name);
  file.symbol = info.symbol;
  if (info.struct_size < sizeof(PluginInfo) || file.name.empty() || info.symbol <= 0x20 ||
      info.symbol >= 0x7f)
    throw Error(damaged);
  file.own_hooks = info.own_hooks;
  file.aliases = parse_aliases(text_of(info.aliases), file.path);
}

// A _cuda.so is linked with the build id of its .so, so that the two cannot be of different builds.
void find_cuda(PluginFile& file) {
  const fs::path path = file.path;
  const fs::path cuda = path.parent_path() / (path.stem().string() + "_cuda.so");
  std::error_code failed;
  if (!fs::exists(cuda, failed)) return;
  const std::string bytes = read_whole(cuda.string());
  const ElfFile elf(bytes, cuda.string());
  if (file.build_id.empty() || elf.build_id() != file.build_id)
    throw Error(cuda.string() + ": of another build (" +
                (elf.build_id().empty() ? "no build id" : elf.build_id()) + ") than " + file.path +
                " (" + (file.build_id.empty() ? "no build id" : file.build_id) +
                "); build both together, or remove it");
  file.cuda_path = cuda.string();
}

}  // namespace

PluginFile inspect_plugin(const std::string& given) {
  std::error_code failed;
  PluginFile file;
  file.path = fs::weakly_canonical(given, failed).string();
  if (failed || file.path.empty()) file.path = given;
  const std::string bytes = read_whole(file.path);
  const ElfFile elf(bytes, file.path);
  file.sealed = check_seal(bytes, file.path);
  const ElfSymbol* entry = nullptr;
  for (const ElfSymbol& s : elf.symbols()) {
    if (!is_entry(s.name)) continue;
    if (entry) throw Error(file.path + ": holds two plugins; use STRATA_LAYER once per library");
    entry = &s;
  }
  if (!entry)
    throw Error(file.path + ": not a plugin: it exports no " STRATA_PLUGIN_PREFIX
                            "* symbol; end its source with STRATA_LAYER(Class, 'X', \"name\")");
  refuse_foreign(entry->name, file.path);
  file.entry = entry->name;
  file.hash = sha256_hex(bytes);
  file.build_id = elf.build_id();
  file.own_kernels = elf.imports("register_kernel");
  read_card(elf, *entry, file);
  find_cuda(file);
  return file;
}

bool is_foreign_library(const std::string& path) {
  try {
    const std::string bytes = read_whole(path);
    const ElfFile elf(bytes, path);
    return std::none_of(elf.symbols().begin(), elf.symbols().end(),
                        [](const ElfSymbol& s) { return is_entry(s.name); });
  } catch (const Error&) {
    return false;
  }
}

}  // namespace strata
