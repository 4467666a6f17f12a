#include "plugins/kit/new_layer.h"

#include <algorithm>
#include <filesystem>

#include "core/io/file.h"
#include "core/model/pattern.h"

namespace strata {
namespace {

namespace fs = std::filesystem;

bool is_word(const std::string& name) {
  return !name.empty() && name.size() < 40 && name[0] >= 'a' && name[0] <= 'z' &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
         });
}

std::string class_name(const std::string& name) {  // short_mix -> ShortMix
  std::string text;
  bool upper = true;
  for (const char c : name) {
    if (c != '_') text += upper && c >= 'a' && c <= 'z' ? char(c - 'a' + 'A') : c;
    upper = c == '_';
  }
  return text;
}

std::string filled(std::string text, const NewLayer& layer) {
  for (const auto& [mark, value] : {std::pair<std::string, std::string>{"@NAME@", layer.name},
                                    {"@CLASS@", class_name(layer.name)},
                                    {"@SYMBOL@", layer.symbol}})
    for (size_t at = 0; (at = text.find(mark, at)) != std::string::npos; at += value.size())
      text.replace(at, mark.size(), value);
  return text;
}

}  // namespace

std::vector<std::string> new_layer(const NewLayer& layer) {
  if (!is_word(layer.name))
    throw Error("'" + layer.name + "' cannot name a layer; take a lower-case word such as gru or " +
                "short_mix");
  if (layer.symbol.size() != 1 || !is_pattern_symbol(layer.symbol[0]))
    throw Error("'" + layer.symbol + "' cannot be a symbol; take one character of a pattern such " +
                "as U");
  const fs::path folder = layer.folder.empty() ? layer.name : layer.folder;
  std::error_code failed;
  if (fs::exists(folder, failed) && !fs::is_empty(folder, failed))
    throw Error(folder.string() + ": holds something already; choose another --out");
  fs::create_directories(folder, failed);
  if (failed)
    throw Error(folder.string() + ": cannot be made: " + failed.message(), ErrorKind::resource);
  std::vector<std::string> files;
  for (const TemplateFile& file : template_files()) {
    const bool replaced = std::any_of(
        template_files().begin(), template_files().end(), [&](const TemplateFile& other) {
          return std::string(other.folder) == "kernel" && std::string(other.name) == file.name;
        });
    const bool wanted =
        std::string(file.folder) == "kernel" ? layer.kernel : !(layer.kernel && replaced);
    if (!wanted) continue;
    files.push_back((folder / filled(file.name, layer)).string());
    write_file(files.back(), filled(file.text, layer));
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace strata
