#include "core/model/config.h"

#include <algorithm>
#include <cmath>

#include "core/io/file.h"
#include "core/model/config_overrides.h"
#include "core/model/config_schema.h"
#include "core/model/pattern.h"
#include "core/model/placement.h"

namespace strata {
namespace {

class Reader {
 public:
  explicit Reader(const ConfigInput& input) : input_(input) {}

  Config run() {
    TomlTable root = parse_toml(input_.text, input_.origin);
    for (size_t i = 0; i < input_.overrides.size(); ++i)
      set_dotted(root, input_.overrides[i], kOverrideLine - int(i));
    for (const auto& [name, value] : root) section(name, value);
    if (input_.check_task && !config_.task.name.empty()) check_task();
    resolve_pattern();
    check_together();
    return std::move(config_);
  }

 private:
  [[noreturn]] void fail(const TomlValue& at, const std::string& text) const {
    std::string place = input_.origin;
    if (at.line <= kOverrideLine) place = input_.overrides[size_t(kOverrideLine - at.line)].origin;
    if (at.line > 0) place += ":" + std::to_string(at.line);
    throw Error(place + ": " + text);
  }

  void section(const std::string& name, const TomlValue& value) {
    std::vector<std::string> known;
    for (const ConfigSection& s : config_sections()) known.push_back(s.name);
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      std::string hint;
      for (const ConfigKey& k : config_keys()) {
        if (k.name == name && hint.empty()) hint = "; the key is " + k.full_name();
      }
      const std::string near = nearest(name, known);
      if (hint.empty() && !near.empty()) hint = "; did you mean [" + near + "]?";
      fail(value, "unknown section [" + name + "]" + hint);
    }
    const TomlTable* table = value.get<TomlTable>();
    if (!table) {
      fail(value,
           name + " must be a table, got " + toml_type_name(value) + "; write [" + name + "]");
    }
    for (const auto& [key, item] : *table) {
      if (name == "layers") {
        layer(key, item);
      } else if (name == "task" && key != "name") {
        task_option(key, item);
      } else {
        fixed(name, key, item);
      }
    }
  }

  void fixed(const std::string& section, const std::string& key, const TomlValue& item) {
    std::vector<std::string> names;
    std::string elsewhere;
    for (const ConfigKey& k : config_keys()) {
      if (k.section == section && k.name == key) {
        try {
          k.set(config_, item);
        } catch (const Error& e) {
          const std::string text = e.what();
          fail(item, k.full_name() + (text.starts_with('.') ? "" : " ") + text);
        }
        return;
      }
      if (k.section == section) names.push_back(k.name);
      if (k.section != section && k.name == key) elsewhere = k.full_name();
    }
    std::string hint = elsewhere.empty() ? nearest(key, names) : elsewhere;
    if (elsewhere.empty() && !hint.empty()) hint = section + "." + hint;
    fail(item, "unknown key " + section + "." + key +
                   (hint.empty() ? "; `strata help config " + section + "` lists them"
                                 : "; did you mean " + hint + "?"));
  }

  void layer(const std::string& name, const TomlValue& item) {
    const TomlTable* table = item.get<TomlTable>();
    if (!table) {
      fail(item, "layers." + toml_key(name) + " must be a table of options, got " +
                     toml_type_name(item) + "; write [layers." + toml_key(name) + "]");
    }
    Options& options = config_.layers[name];
    for (const auto& [key, value] : *table) {
      const std::string full = "layers." + toml_key(name) + "." + toml_key(key);
      if (const bool* b = value.get<bool>()) {
        options[key] = *b;
      } else if (const int64_t* i = value.get<int64_t>()) {
        options[key] = *i;
      } else if (const double* d = value.get<double>()) {
        if (!std::isfinite(*d)) fail(value, full + " must be finite, got " + to_toml(value));
        options[key] = *d;
      } else if (const std::string* s = value.get<std::string>()) {
        options[key] = *s;
      } else {
        fail(value,
             full + " must be a boolean, integer, number or string, got " + toml_type_name(value));
      }
    }
  }

  void task_option(const std::string& key, const TomlValue& value) {
    TaskValue& out = config_.task.options[key];
    if (const bool* b = value.get<bool>()) {
      out = *b;
    } else if (const int64_t* i = value.get<int64_t>()) {
      out = *i;
    } else if (const double* d = value.get<double>()) {
      out = *d;
    } else if (const std::string* s = value.get<std::string>()) {
      out = *s;
    } else if (const TomlList* list = value.get<TomlList>()) {
      std::vector<std::string> texts;
      for (const TomlValue& item : *list) {
        const std::string* text = item.get<std::string>();
        if (!text) fail(item, "task." + key + " must be a list of strings, got " + to_toml(item));
        texts.push_back(*text);
      }
      out = std::move(texts);
    } else {
      fail(value, "task." + key + " must be a value or a list of strings, got a table");
    }
  }

  void check_task() {
    try {
      input_.check_task(config_.task);
    } catch (const Error& e) {
      throw Error(input_.origin + ": " + e.what());
    }
  }

  // `place` and generators become the pattern that they mean; any pattern must at least parse.
  void resolve_pattern() {
    ModelConfig& m = config_.model;
    if (!m.place.empty()) {
      const std::string where = input_.origin + ": model.place";
      if (!m.pattern.empty()) throw Error(where + " and model.pattern are both there; keep one");
      std::string base;
      Placements placements;
      for (const auto& [key, text] : m.place) {
        if (key == "base") base = string_of(parse_toml_value(text, where), where + ".base");
      }
      if (base.empty()) throw Error(where + " needs base, the pattern that blocks are placed in");
      const int64_t n = int64_t(expand_pattern(base).blocks.size());
      for (const auto& [key, text] : m.place) {
        if (key != "base") {
          placements.emplace_back(key, places(parse_toml_value(text, where), n, where + "." + key));
        }
      }
      m.pattern = place(base, placements);
      m.place.clear();
    }
    if (is_generator(m.pattern)) m.pattern = generate_pattern(m.pattern);
    if (!m.pattern.empty()) expand_pattern(m.pattern);
  }

  static std::string string_of(const TomlValue& value, const std::string& where) {
    if (const std::string* text = value.get<std::string>()) return *text;
    throw Error(where + " must be a string, got " + to_toml(value));
  }

  static std::vector<int64_t> places(const TomlValue& value, int64_t n, const std::string& where) {
    if (const std::string* rule = value.get<std::string>()) return places_of(*rule, n);
    const TomlList* list = value.get<TomlList>();
    if (!list) {
      throw Error(where + " must be a list of places or a rule such as \"period(8, 4)\", got " +
                  to_toml(value));
    }
    std::vector<int64_t> out;
    for (const TomlValue& item : *list) {
      const int64_t* i = item.get<int64_t>();
      if (!i) throw Error(where + " must hold whole numbers, got " + to_toml(item));
      out.push_back(*i);
    }
    return out;
  }

  void check_together() const {
    const TrainConfig& t = config_.train;
    const auto refuse = [&](const std::string& text) { throw Error(input_.origin + ": " + text); };
    if (t.batch_size % t.accumulate != 0) {
      refuse("train.batch_size = " + std::to_string(t.batch_size) +
             " does not divide into train.accumulate = " + std::to_string(t.accumulate) +
             " equal microbatches");
    }
    if (t.min_lr > t.lr) {
      refuse("train.min_lr = " + to_string(OptionValue(t.min_lr)) +
             " is above train.lr = " + to_string(OptionValue(t.lr)));
    }
    if (t.warmup >= 1 && t.warmup != std::floor(t.warmup)) {
      refuse("train.warmup = " + to_string(OptionValue(t.warmup)) +
             " must be a share of the steps below 1, or a whole number of steps");
    }
  }

  const ConfigInput& input_;
  Config config_;
};

// Every key but those of [ablate] is part of a run; logging keys are not part of its identity.
TomlTable tree(const Config& config, const std::string& section) {
  TomlTable out;
  if (section == "layers") {
    for (const auto& [name, options] : config.layers) {
      TomlTable table;
      for (const auto& [key, value] : options) {
        TomlValue& out_value = table[key];
        std::visit([&](const auto& v) { out_value.value = v; }, value);
      }
      out[name].value = std::move(table);
    }
  }
  if (section == "task") {
    for (const auto& [key, value] : config.task.options) {
      std::visit(
          [&, k = key](const auto& v) {
            if constexpr (std::is_same_v<std::decay_t<decltype(v)>, std::vector<std::string>>) {
              TomlList list;
              for (const std::string& text : v) list.push_back({text});
              out[k].value = std::move(list);
            } else {
              out[k].value = v;
            }
          },
          value);
    }
  }
  return out;
}

bool has_study(const AblateConfig& a) {
  return !a.patterns.empty() || !a.variants.empty() || !a.grid.empty();
}

}  // namespace

Config read_config(const ConfigInput& input) { return Reader(input).run(); }

Config load_config(const std::string& path, std::vector<Override> overrides, TaskCheck check_task) {
  return read_config({read_file(path, 1 << 20), path, std::move(overrides), std::move(check_task)});
}

std::string to_toml(const Config& config, bool commented) {
  std::string out;
  for (const ConfigSection& section : config_sections()) {
    if (section.name == "ablate" && !commented && !has_study(config.ablate)) continue;
    const TomlTable free = tree(config, section.name);
    if (section.name != "layers") {
      out += (out.empty() ? "[" : "\n[") + section.name + "]";
      out += commented ? "  # " + section.help + "\n" : "\n";
    }
    for (const ConfigKey& key : config_keys()) {
      if (key.section != section.name) continue;
      std::string line = key.name + " = " + to_toml(key.get(config));
      if (commented) {
        if (line.size() < 32) line.resize(32, ' ');
        line += "  # " + (key.unit.empty() ? "" : key.unit + ": ") + key.help;
      }
      out += line + "\n";
    }
    for (const auto& [name, value] : free) {
      if (section.name == "layers") {
        out += "\n[layers." + toml_key(name) + "]\n";
        for (const auto& [key, item] : *value.get<TomlTable>()) {
          out += toml_key(key) + " = " + to_toml(item) + "\n";
        }
      } else {
        out += toml_key(name) + " = " + to_toml(value) + "\n";
      }
    }
  }
  return out;
}

// "cuda" of "cuda:1" and of "cuda:0,cuda:1": cards of one model give the same numbers.
static std::string device_kind(const Config& config) {
  return config.model.device.substr(0, config.model.device.find(':'));
}

std::string config_hash(const Config& config) {
  uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a, 64 bits
  const auto add = [&](const std::string& text) {
    for (unsigned char c : text + "\n") hash = (hash ^ c) * 0x100000001b3u;
  };
  for (const ConfigKey& key : config_keys()) {
    if (key.section == "ablate" || !key.identity) continue;
    if (key.full_name() == "model.pattern" && !config.model.pattern.empty()) {
      add(pattern_hash(expand_pattern(config.model.pattern)));  // two spellings, one stack
    } else if (key.full_name() == "model.device") {
      add(key.full_name() + to_toml(TomlValue{device_kind(config)}));
    } else if (key.full_name() == "train.threads" && device_kind(config) != "cpu") {
      continue;  // a device's results do not depend on the threads that feed it
    } else {
      add(key.full_name() + to_toml(key.get(config)));
    }
  }
  add(to_toml(TomlValue{tree(config, "layers")}));
  add(to_toml(TomlValue{tree(config, "task")}));
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
  return text;
}

void require_runnable(const Config& config, const std::string& origin) {
  if (config.model.pattern.empty()) {
    throw Error(origin +
                ": model.pattern is missing; write [model] pattern = \"M-M*-\" or --pattern");
  }
  if (config.task.name.empty()) {
    throw Error(origin + ": task.name is missing; write [task] name = \"mqar\" or --task");
  }
}

}  // namespace strata
