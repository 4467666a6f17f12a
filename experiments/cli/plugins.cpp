#include "experiments/cli/plugins.h"

#include "core/model/pattern.h"
#include "experiments/report/study.h"

namespace strata {
namespace {

PatternCell cell_of(const BlockSpec& block, Registry& plugins) {
  PatternCell cell;
  cell.symbol = block.symbol;
  if (!block.symbol.empty()) cell.name = plugins.name_of(block.symbol);
  for (const PatternOption& option : block.options) {
    cell.options += (cell.options.empty() ? "" : ", ") + option.key + "=" + to_string(option.value);
  }
  if (block.share) cell.share = block.share->id;
  for (const std::vector<BlockSpec>& branch : block.branches) {
    PatternCell part;
    for (const BlockSpec& member : branch) {
      const PatternCell inner = cell_of(member, plugins);
      part.symbol += inner.symbol;
      part.name += (part.name.empty() ? "" : ", ") + inner.name;
    }
    cell.branches.push_back(std::move(part));
  }
  return cell;
}

}  // namespace

std::unique_ptr<Registry> open_plugins(const Session& session) {
  return std::make_unique<Registry>(session.plugin_paths);
}

std::vector<std::string> plugin_arguments(const Session& session) {
  std::vector<std::string> out;
  for (const std::string& path : session.plugin_paths) {
    out.push_back("--plugin-path");
    out.push_back(path);
  }
  return out;
}

std::vector<PluginRecord> plugins_of(const std::string& pattern, Registry& plugins) {
  std::vector<PluginRecord> out;
  for_each_layer(expand_pattern(pattern), [&](const BlockSpec& block) {
    const PluginFile& file = plugins.find(block.symbol);
    for (const PluginRecord& known : out) {
      if (known.name == file.name) return;
    }
    out.push_back({file.name, file.path, file.hash});
  });
  return out;
}

std::vector<PatternCell> draw_pattern(const std::string& pattern, Registry& plugins) {
  std::vector<PatternCell> cells;
  for (const BlockSpec& block : expand_pattern(pattern).blocks) {
    cells.push_back(cell_of(block, plugins));
  }
  return cells;
}

}  // namespace strata
