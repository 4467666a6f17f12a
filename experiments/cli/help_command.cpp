// strata help: the config keys, tasks, layers and the pattern grammar, each from its own table.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>

#include "core/io/json.h"
#include "core/model/config_schema.h"
#include "core/model/pattern.h"
#include "experiments/cli/plugins.h"
#include "experiments/tasks/task.h"

namespace strata {
namespace {

// One key on a help page.
struct HelpRow {
  std::string name, type, standard, unit, range, help;
};

void print_rows(const std::vector<HelpRow>& rows) {
  size_t name = 0, type = 0, standard = 0;
  for (const HelpRow& r : rows) {
    name = std::max(name, r.name.size());
    type = std::max(type, r.type.size());
    standard = std::max(standard, std::min<size_t>(r.standard.size(), 16));
  }
  for (const HelpRow& r : rows) {
    std::string line = "  " + r.name;
    line.resize(2 + name + 2, ' ');
    line += r.type;
    line.resize(2 + name + 2 + type + 2, ' ');
    line += r.standard;
    line.resize(std::max(line.size(), 2 + name + 2 + type + 2 + standard), ' ');
    line += "  " + (r.unit.empty() ? "" : r.unit + ": ") + r.help;
    if (!r.range.empty()) line += " (" + r.range + ")";
    std::cout << line << "\n";
  }
}

Json to_json(const std::vector<HelpRow>& rows) {
  Json out = Json::array();
  for (const HelpRow& r : rows) {
    Json row = Json::object();
    row.set("key", r.name).set("type", r.type).set("default", r.standard);
    row.set("unit", r.unit).set("range", r.range).set("help", r.help);
    out.push(std::move(row));
  }
  return out;
}

int show(const std::vector<HelpRow>& rows, const Session& session) {
  if (session.json) {
    std::cout << to_json(rows).dump(2) << "\n";
  } else {
    print_rows(rows);
  }
  return kDone;
}

int help_config(const std::string& wanted, const Session& session) {
  std::vector<HelpRow> rows;
  std::vector<std::string> known;
  for (const ConfigSection& section : config_sections()) {
    known.push_back(section.name);
    if (wanted.empty() && !session.json) {
      if (!rows.empty()) print_rows(std::exchange(rows, {}));
      std::cout << (known.size() > 1 ? "\n" : "") << "[" << section.name << "]  " << section.help
                << "\n";
    }
    for (const ConfigKey& k : config_keys()) {
      if (k.section != section.name) continue;
      known.push_back(k.full_name());
      known.push_back(k.name);
      if (wanted.empty() || wanted == k.section || wanted == k.full_name() || wanted == k.name) {
        rows.push_back({wanted.empty() && !session.json ? k.name : k.full_name(), k.type,
                        k.standard(), k.unit, k.range, k.help});
      }
    }
  }
  if (wanted == "layers") {
    std::cout << "options by symbol or plugin name; `strata help layer NAME` lists them\n";
    return kDone;
  }
  if (rows.empty() && !wanted.empty()) {
    const std::string near = nearest(wanted, known);
    throw Error(
        "no config key '" + wanted + "'" +
        (near.empty() ? "; `strata help config` lists all" : "; did you mean " + near + "?"));
  }
  return show(rows, session);
}

int help_task(const std::string& name, const Session& session) {
  if (name.empty()) {
    if (session.json) {
      Json rows = Json::array();
      for (const std::string& task : task_names()) {
        Json row = Json::object();
        row.set("task", task).set("help", task_summary(task));
        rows.push(std::move(row));
      }
      std::cout << rows.dump(2) << "\n";
      return kDone;
    }
    for (const std::string& task : task_names()) {
      std::string line = "  " + task;
      line.resize(20, ' ');
      std::cout << line << task_summary(task) << "\n";
    }
    return kDone;
  }
  std::vector<HelpRow> rows;
  for (const TaskOption& o : task_options(name)) {
    rows.push_back(
        {"task." + o.name, value_type(o.standard), value_text(o.standard), o.unit, "", o.help});
  }
  if (!session.json) std::cout << name << ": " << task_summary(name) << "\n";
  return show(rows, session);
}

// An option's type by its default, as in TOML.
std::string option_type(const OptionValue& value) {
  return std::holds_alternative<double>(value) ? "number" : type_name(value);
}

int help_layer(const std::string& name, const Session& session) {
  const auto plugins = open_plugins(session);
  if (name.empty()) return show_layers(*plugins, session);
  const PluginFile& file = plugins->find(name);
  // What the constructor reads is what the layer knows; the width only has to be one it accepts.
  std::vector<HelpRow> rows;
  std::string refused;
  for (int64_t d_model = 64; d_model <= 1024 && rows.empty(); d_model *= 2) {
    const LayerConfig config(d_model, 1, plugins->preset(name), name);
    try {
      plugins->create(name, config);
    } catch (const Error& e) {
      refused = e.what();
      continue;
    }
    for (const LayerConfig::Read& read : config.reads()) {
      rows.push_back({"layers." + std::string(1, file.symbol) + "." + read.key,
                      option_type(read.fallback), to_string(read.fallback), "", "", read.help});
    }
    refused.clear();
    break;
  }
  if (!refused.empty()) throw Error(refused);
  if (!session.json) {
    std::cout << file.name << ": symbol " << file.symbol << ", " << file.path << "\n";
    if (!rows.empty())
      std::cout << "defaults that follow from d_model are shown for d_model = 64\n";
  }
  return show(rows, session);
}

int help_exit_codes(const Session& session) {
  Json rows = Json::array();
  for (const auto& [code, meaning] :
       {std::pair{kDone, "done"}, std::pair{kFailed, "a check or a study failed"},
        std::pair{kBadInput, "bad input: a config, file, pattern, plugin or option is wrong"},
        std::pair{kNoResources,
                  "resources: memory or disk is short, or a device is missing or failed"}}) {
    Json row = Json::object();
    row.set("code", int64_t(code)).set("help", meaning);
    rows.push(std::move(row));
    if (!session.json) std::cout << "  " << code << "  " << meaning << "\n";
  }
  if (session.json) std::cout << rows.dump(2) << "\n";
  return kDone;
}

int help_pattern(const Session& session) {
  if (session.json) {
    Json page = Json::object();
    page.set("help", pattern_help());
    std::cout << page.dump(2) << "\n";
  } else {
    std::cout << pattern_help();
  }
  return kDone;
}

}  // namespace

void add_help_command(CLI::App& app, Session& session) {
  auto* command = app.add_subcommand("help", "explain config keys, tasks, layers, patterns");
  command->require_subcommand(1);
  command->footer(
      "\nExamples:\n  strata help config train.lr\n  strata help task mqar\n"
      "  strata help layer mamba2\n  strata help pattern");

  auto* config = command->add_subcommand("config", "every key, a [section], or one KEY");
  auto key = std::make_shared<std::string>();
  config->add_option("key", *key, "a section or a key");
  config->callback(
      [&session, key] { session.action = [&session, key] { return help_config(*key, session); }; });

  auto* task = command->add_subcommand("task", "all tasks, or the options of one");
  auto name = std::make_shared<std::string>();
  task->add_option("name", *name, "a task");
  task->callback([&session, name] {
    session.action = [&session, name] { return help_task(*name, session); };
  });

  auto* layer = command->add_subcommand("layer", "all plugins, or the options of one");
  auto symbol = std::make_shared<std::string>();
  layer->add_option("name", *symbol, "a plugin's name or symbol");
  layer->callback([&session, symbol] {
    session.action = [&session, symbol] { return help_layer(*symbol, session); };
  });

  command->add_subcommand("pattern", "the grammar of patterns, with examples")
      ->callback([&session] { session.action = [&session] { return help_pattern(session); }; });
  command->add_subcommand("exit-codes", "what a script can rely on")->callback([&session] {
    session.action = [&session] { return help_exit_codes(session); };
  });
}

}  // namespace strata
