#include "plugins/host/registry.h"

#include <algorithm>
#include <filesystem>

#include "core/contract/plugin.h"
#include "plugins/host/loader.h"

namespace strata {

namespace fs = std::filesystem;

std::string default_plugin_folder() {
  std::error_code failed;
  const fs::path self = fs::read_symlink("/proc/self/exe", failed);
  return (self.parent_path().parent_path() / "plugins").string();
}

Registry::Registry(const std::vector<std::string>& paths, const std::string& folder) {
  add_folder(folder, true);
  std::error_code failed;
  for (const std::string& path : paths) {
    if (fs::is_directory(path, failed))
      add_folder(path, false);
    else
      add_file(path);
  }
}

void Registry::add_folder(const std::string& folder, bool built_in) {
  std::vector<std::string> files;
  std::error_code failed;
  for (fs::directory_iterator it(folder, failed), end; !failed && it != end; it.increment(failed)) {
    const std::string name = it->path().filename().string();
    if (it->path().extension() == ".so" && !name.ends_with("_cuda.so"))
      files.push_back(it->path().string());
  }
  if (failed && !built_in)
    throw Error(folder + ": cannot be searched for plugins: " + failed.message());
  std::sort(files.begin(), files.end());
  bool found = false;
  for (const std::string& path : files) {
    PluginFile file;
    try {
      file = inspect_plugin(path);
    } catch (const Error& e) {
      if (is_foreign_library(path)) continue;
      refused_[path] = e.what();
      found = true;
      // Whoever names a folder means its files: another build's plugin does not stand in for one.
      if (const std::string name = fs::path(path).stem(); !built_in && built_in_.contains(name))
        remove(name);
      continue;
    }
    found = true;
    add(std::move(file), built_in);
  }
  if (!found && !built_in) no_plugins_.push_back(folder);
}

std::string Registry::add_file(const std::string& path) {
  PluginFile file = inspect_plugin(path);
  const std::string name = file.name;
  add(std::move(file), false);
  return name;
}

void Registry::remove(const std::string& name) {
  const size_t gone = bindings_.find(name)->second.plugin;
  std::erase_if(bindings_, [&](const auto& item) { return item.second.plugin == gone; });
  for (auto& [key, binding] : bindings_) binding.plugin -= binding.plugin > gone;
  plugins_.erase(plugins_.begin() + ptrdiff_t(gone));
  built_in_.erase(name);
}

void Registry::add(PluginFile file, bool built_in) {
  for (const PluginFile& known : plugins_)
    if (known.path == file.path || (known.name == file.name && known.hash == file.hash)) return;
  if (!built_in && built_in_.contains(file.name)) remove(file.name);
  std::vector<std::pair<std::string, Options>> keys = {{file.name, {}}};
  if (file.name.size() != 1 || file.name[0] != file.symbol)
    keys.push_back({std::string(1, file.symbol), {}});
  for (const PluginAlias& a : file.aliases) keys.push_back({std::string(1, a.symbol), a.preset});
  for (const auto& [key, preset] : keys) {
    const auto it = bindings_.find(key);
    if (it != bindings_.end())
      throw Error("two plugins claim " +
                  std::string(key == file.name ? "the name '" : "the symbol '") + key +
                  "': " + plugins_[it->second.plugin].path + " and " + file.path +
                  "; rename one in its STRATA_LAYER line, or leave one out of --plugin-path");
  }
  for (auto& [key, preset] : keys) bindings_[key] = {plugins_.size(), preset};
  if (built_in) built_in_.insert(file.name);
  plugins_.push_back(std::move(file));
}

const Registry::Binding& Registry::bind(const std::string& symbol) const {
  const auto it = bindings_.find(symbol);
  if (it != bindings_.end()) return it->second;
  std::vector<std::string> names;
  std::string known;
  for (const PluginFile& p : plugins_) {
    names.push_back(p.name);
    known += (known.empty() ? "'" : ", '") + std::string(1, p.symbol) + "' " + p.name;
    for (const PluginAlias& a : p.aliases)
      known += ", '" + std::string(1, a.symbol) + "' " + p.name;
  }
  const bool is_name = symbol.size() > 1;
  const std::string near = is_name ? nearest(symbol, names) : "";
  std::string text =
      "no plugin has the " + std::string(is_name ? "name '" : "symbol '") + symbol + "'";
  if (!near.empty()) text += "; the nearest is '" + near + "'";
  text += known.empty() ? "; no plugins were found" : "; known are " + known;
  for (const auto& [path, why] : refused_)
    if (!is_name || fs::path(path).stem() == symbol) text += "; refused was " + why;
  for (const std::string& folder : no_plugins_) text += "; " + folder + " holds no plugin";
  if (refused_.empty() && no_plugins_.empty())
    text += "; a plugin elsewhere is found with --plugin-path FOLDER";
  throw Error(text);
}

const PluginFile& Registry::find(const std::string& symbol) const {
  return plugins_[bind(symbol).plugin];
}

void Registry::use_device(Device device) {
  if (device.kind == DeviceKind::cuda) load_cuda_library();
  device_ = device;
}

std::unique_ptr<Layer> Registry::create(const std::string& symbol, const LayerConfig& config) {
  const PluginFile& file = find(symbol);
  const PluginInfo& info = load_plugin(file);
  if (device_.kind == DeviceKind::cuda) load_cuda_half(file);
  auto layer = info.create(config);
  if (!layer) throw Error(file.path + ": makes no layer; its create function returned nothing");
  return layer;
}

std::string Registry::name_of(const std::string& symbol) { return find(symbol).name; }

Options Registry::preset(const std::string& symbol) { return bind(symbol).preset; }

uint32_t Registry::own_hooks(const std::string& symbol) { return find(symbol).own_hooks; }

std::string layers_table(const Registry& registry) {
  std::vector<std::vector<std::string>> rows = {
      {"name", "symbol", "devices", "own hooks", "default hooks", "file"}};
  for (const PluginFile& p : registry.plugins()) {
    std::string symbols(1, p.symbol), own, rest;
    for (const PluginAlias& a : p.aliases) {
      symbols += std::string(" ") + a.symbol;
      std::string preset;
      for (const auto& [key, value] : a.preset)
        preset += (preset.empty() ? "" : ",") + key + "=" + to_string(value);
      if (!preset.empty()) symbols += "{" + preset + "}";
    }
    for (const auto& [hook, name] : {std::pair{kForward, "forward"},
                                     {kBackward, "backward"},
                                     {kState, "state"},
                                     {kQuantize, "quantize"},
                                     {kAfterStep, "after_step"}}) {
      std::string& list = p.own_hooks & hook ? own : rest;
      list += (list.empty() ? "" : " ") + std::string(name);
    }
    rows.push_back({p.name, symbols, serves_cuda(p) ? "cpu,cuda" : "cpu", own, rest, p.path});
  }
  std::vector<size_t> widths(rows[0].size());
  for (const auto& row : rows)
    for (size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
  std::string text;
  for (const auto& row : rows) {
    for (size_t c = 0; c + 1 < row.size(); ++c)
      text += row[c] + std::string(widths[c] - row[c].size() + 2, ' ');
    text += row.back() + "\n";
  }
  for (const auto& [path, why] : registry.refused()) text += "refused: " + why + "\n";
  return text;
}

}  // namespace strata
