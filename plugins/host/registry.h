// Finds plugins and hands out their layers. Files are read at construction; a library is loaded
// only when a layer of it is asked for.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/model/layer_factory.h"
#include "plugins/host/handshake.h"

namespace strata {

// <folder of the executable>/../plugins: where the build and the install tree keep their plugins.
std::string default_plugin_folder();

class Registry final : public LayerFactory {
 public:
  // `paths`: folders, of which every *.so that is a plugin is taken, and single files. `folder` is
  // searched first; it may be missing, and a plugin of `paths` replaces its plugin of that name.
  // Throws Error for a path that does not exist, for a single file that fails the handshake, and
  // when two files claim one symbol or name (naming both). A file of a folder that fails the
  // handshake is kept in refused().
  explicit Registry(const std::vector<std::string>& paths = {},
                    const std::string& folder = default_plugin_folder());

  // LayerFactory: `symbol` is a symbol ("M"), an alias ("w") or a name ("mamba2").
  void use_device(Device device) override;
  std::unique_ptr<Layer> create(const std::string& symbol, const LayerConfig& config) override;
  std::string name_of(const std::string& symbol) override;
  Options preset(const std::string& symbol) override;
  uint32_t own_hooks(const std::string& symbol) override;

  // Throws Error for an unknown symbol or name: it names the nearest, the known ones, and the
  // refused file of that name.
  const PluginFile& find(const std::string& symbol) const;

  // Takes one more file and returns its name: a FILE.so on the command line. It replaces the
  // default folder's plugin of that name.
  std::string add_file(const std::string& path);

  const std::vector<PluginFile>& plugins() const { return plugins_; }  // in the order found
  // Files that look like plugins and were refused, with the sentence that says why.
  const std::map<std::string, std::string>& refused() const { return refused_; }

 private:
  struct Binding {
    size_t plugin;
    Options preset;
  };
  void add_folder(const std::string& folder, bool built_in);
  void add(PluginFile file, bool built_in);
  void remove(const std::string& name);
  const Binding& bind(const std::string& symbol) const;

  Device device_;
  std::vector<PluginFile> plugins_;
  std::map<std::string, Binding, std::less<>> bindings_;  // by symbol, alias and name
  std::map<std::string, std::string> refused_;
  std::set<std::string> built_in_;       // names of the default folder's plugins
  std::vector<std::string> no_plugins_;  // folders of `paths` without one
};

// `strata layers`: one line per plugin with name, symbols, devices, own and default hooks, file;
// then the refused files.
std::string layers_table(const Registry& registry);

}  // namespace strata
