// What a plugin file says about itself, read before any of its code runs.
#pragma once

#include <string>
#include <vector>

#include "core/contract/options.h"

namespace strata {

// A further symbol of a plugin with options that it brings: "w{window=4096}".
struct PluginAlias {
  char symbol = 0;
  Options preset;
};

struct PluginFile {
  std::string path;      // absolute
  std::string hash;      // SHA-256 of the file
  std::string build_id;  // of the linker; "" when it wrote none
  std::string entry;     // the exported symbol
  std::string name;      // "mamba2"
  char symbol = 0;       // 'M'
  std::vector<PluginAlias> aliases;
  uint32_t own_hooks = 0;    // Hook bits (core/contract/plugin.h)
  bool own_kernels = false;  // it registers kernels, and so needs some for every device
  std::string cuda_path;     // the <name>_cuda.so beside it, or ""
  bool sealed = false;       // it carries a checksum of itself, and that is right
};

// Reads and checks a plugin file. Throws Error (one sentence with both sides and the remedy) for a
// file that cannot be read, is no ELF file or no plugin, is cut or damaged, was built for another
// ABI, compiler or standard library, or has a _cuda.so of another build beside it.
PluginFile inspect_plugin(const std::string& path);

// True for a sound library that exports nothing that begins like a plugin's entry: one that may
// lie in a folder of plugins without being meant as one.
bool is_foreign_library(const std::string& path);

// "w{window=4096} l{window=1024,sinks=4}" -> symbols with options. Throws Error naming `path`.
std::vector<PluginAlias> parse_aliases(const std::string& text, const std::string& path);

// A value as TOML writes it: true, 64, 0.5, "relu2". Throws Error.
OptionValue parse_option_value(const std::string& text);

}  // namespace strata
