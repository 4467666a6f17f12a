// Reading of family files and foreign configs; the tensors are in family_tensors.cpp.
#include "core/io/families.h"

#include <algorithm>
#include <filesystem>
#include <initializer_list>

#include "core/io/data_folder.h"
#include "core/io/expression.h"
#include "core/io/file.h"
#include "core/io/toml.h"
#include "core/model/pattern.h"

namespace strata {

namespace fs = std::filesystem;

namespace {

// A table of a family file, with its place for messages.
class Section {
 public:
  Section(const TomlTable& table, std::string where) : table_(table), where_(std::move(where)) {}

  const std::string& where() const { return where_; }
  std::string where(std::string_view key) const {
    return where_ + (where_.ends_with(": ") ? "" : ".") + std::string(key);
  }
  const TomlTable& table() const { return table_; }

  const TomlValue* find(std::string_view key) const {
    const auto found = table_.find(key);
    return found == table_.end() ? nullptr : &found->second;
  }
  std::string text(std::string_view key) const {
    const TomlValue* value = find(key);
    if (!value) throw Error(where(key) + " is missing");
    return text_of(*value, where(key));
  }
  Section table(std::string_view key) const {
    const TomlValue* value = find(key);
    static const TomlTable kNone;
    return {value ? table_of(*value, where(key)) : kNone, where(key)};
  }
  void allow(std::initializer_list<std::string_view> keys) const {
    for (const auto& [key, value] : table_) {
      if (std::find(keys.begin(), keys.end(), key) == keys.end()) {
        throw Error(where(key) + " is unknown; did you mean \"" + nearest(key, keys) + "\"?");
      }
    }
  }

  static const std::string& text_of(const TomlValue& value, const std::string& where) {
    if (const auto* text = value.get<std::string>()) return *text;
    throw Error(where + " must be a string, got " + toml_type_name(value));
  }
  static const TomlTable& table_of(const TomlValue& value, const std::string& where) {
    if (const auto* table = value.get<TomlTable>()) return *table;
    throw Error(where + " must be a table, got " + toml_type_name(value));
  }
  static const TomlList& list_of(const TomlValue& value, const std::string& where) {
    if (const auto* list = value.get<TomlList>()) return *list;
    throw Error(where + " must be a list, got " + toml_type_name(value));
  }

 private:
  const TomlTable& table_;
  std::string where_;
};

std::string replace_all(std::string text, const std::string& from, const std::string& to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
  return text;
}

std::string joined(const std::vector<std::string>& names) {
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
  return list;
}

class FamilyReader {
 public:
  FamilyReader(const Json& config, const std::string& origin, const TomlTable& file,
               const std::string& file_name)
      : config_(config), file_(file, file_name + ": ") {
    model_.origin = origin;
    model_.family_file = file_name;
  }

  ForeignModel read() {
    file_.allow(
        {"model_type", "needs", "refuse", "model", "stack", "kinds", "block", "host", "ignore"});
    model_.family = file_.text("model_type");
    read_needs();
    check_refusals();
    if (!model_.needs.empty()) return std::move(model_);
    read_model();
    read_stack();
    for (const auto& [symbol, value] : file_.table("block").table()) read_options(symbol);
    read_tensors();
    return std::move(model_);
  }

 private:
  Json value_of(const std::string& expression, const std::string& where,
                const Json& variables = Json()) const {
    return evaluate(expression, {config_, variables, model_.origin}, where);
  }
  // A TOML string is an expression, any other value stands for itself.
  Json value_of(const TomlValue& value, const std::string& where) const {
    if (const auto* text = value.get<std::string>()) return value_of(*text, where);
    if (const auto* flag = value.get<bool>()) return Json(*flag);
    if (const auto* integer = value.get<int64_t>()) return Json(*integer);
    if (const auto* real = value.get<double>()) return Json(*real);
    throw Error(where + " must be an expression, a number or a boolean, got " +
                toml_type_name(value));
  }
  Json needed(const TomlValue& value, const std::string& where) const {
    Json result = value_of(value, where);
    if (!result.is_null()) return result;
    const auto* text = value.get<std::string>();
    throw Error(model_.origin + ": expected a value for \"" + (text ? *text : "") +
                "\", got none (" + where + " asks for it)");
  }

  // Calls `act` with every entry of a list of tables {when, <text>} that applies.
  template <class F>
  void for_each_case(std::string_view key, std::string_view text, F act) const {
    const TomlValue* list = file_.find(key);
    if (!list) return;
    for (const TomlValue& value : Section::list_of(*list, file_.where(key))) {
      const Section entry(Section::table_of(value, file_.where(key)), file_.where(key));
      entry.allow({"when", text});
      const bool applies =
          !entry.find("when") ||
          value_of(entry.text("when"), entry.where("when")).as_bool(entry.where("when"));
      if (applies) act(entry);
    }
  }

  void read_needs() {
    for_each_case("needs", "what",
                  [&](const Section& entry) { model_.needs.push_back(entry.text("what")); });
  }

  void check_refusals() const {
    for_each_case("refuse", "say", [&](const Section& entry) {
      const std::string values =
          substitute(entry.text("when"), {config_, Json(), model_.origin}, entry.where("when"));
      throw Error(model_.origin + ": " + entry.text("say") + ", got " + values);
    });
  }

  void read_model() {
    const Section section = file_.table("model");
    section.allow({"d_model", "vocab_size", "norm", "norm_eps", "tie_embeddings",
                   "embedding_multiplier", "residual_multiplier", "logits_multiplier"});
    ModelConfig& to = model_.config.model;
    for (const auto& [key, value] : section.table()) {
      const std::string where = section.where(key);
      const Json json = needed(value, where);
      if (key == "d_model") to.d_model = positive(json, where, 1 << 20);
      if (key == "vocab_size") to.vocab_size = positive(json, where, 1 << 24);
      if (key == "norm") to.norm = json.as_string(where);
      if (key == "norm_eps") to.norm_eps = json.as_double(where);
      if (key == "tie_embeddings") to.tie_embeddings = json.as_bool(where);
      if (key == "embedding_multiplier") to.embedding_multiplier = json.as_double(where);
      if (key == "residual_multiplier") to.residual_multiplier = json.as_double(where);
      if (key == "logits_multiplier") to.logits_multiplier = json.as_double(where);
    }
  }

  int64_t positive(const Json& json, const std::string& where, int64_t limit) const {
    const std::string place = model_.origin + ": the value for " + where;
    const int64_t value = json.as_int(place);
    if (value < 1 || value > limit)
      throw Error(place + " must be from 1 to " + std::to_string(limit) + ", got " +
                  std::to_string(value));
    return value;
  }

  void check_layers(int64_t n) const {
    if (n > int64_t(kMaxPatternBlocks)) {
      throw Error(model_.origin + ": " + std::to_string(n) + " layers are too many, at most " +
                  std::to_string(kMaxPatternBlocks) + " can be");
    }
  }

  // The kind of every foreign layer.
  std::vector<std::string> layer_kinds(const Section& stack) const {
    const Json count =
        stack.find("count") ? value_of(stack.text("count"), stack.where("count")) : Json();
    std::vector<std::string> kinds;
    if (stack.find("each")) {
      const int64_t n = positive(count, stack.where("count"), int64_t(kMaxPatternBlocks));
      check_layers(n);
      for (int64_t layer = 0; layer < n; ++layer) {
        const Json variables = Json::object().set("layer", layer);
        const std::string where = stack.where("each");
        kinds.push_back(value_of(stack.text("each"), where, variables).as_string(where));
      }
      return kinds;
    }
    stack.text("layers");  // must be there
    const Json layers = needed(*stack.find("layers"), stack.where("layers"));
    if (layers.is_string()) {
      for (const char letter : layers.as_string("")) kinds.emplace_back(1, letter);
    } else {
      for (const Json& kind : layers.as_array(stack.where("layers"))) {
        kinds.push_back(kind.as_string(stack.where("layers")));
      }
    }
    check_layers(int64_t(kinds.size()));
    if (!count.is_null() && count.as_int(stack.where("count")) != int64_t(kinds.size())) {
      throw Error(model_.origin + ": it states " + std::to_string(count.as_int("")) + " layers (" +
                  stack.text("count") + "), but lists " + std::to_string(kinds.size()) + " (" +
                  stack.text("layers") + "); one of the two is wrong");
    }
    return kinds;
  }

  void read_stack() {
    const Section stack = file_.table("stack");
    stack.allow({"layers", "each", "count", "prefix"});
    const Section kinds = file_.table("kinds");
    int64_t blocks = 0;
    for (const std::string& kind : layer_kinds(stack)) {
      const TomlValue* pattern = kinds.find(kind);
      if (!pattern) {
        std::vector<std::string> known;
        for (const auto& [name, value] : kinds.table()) known.push_back(name);
        throw Error(model_.origin + ": layer " + std::to_string(model_.layer_ends.size()) +
                    " is of the unknown kind \"" + kind + "\"; known: " + joined(known));
      }
      const std::string& symbols = Section::text_of(*pattern, kinds.where(kind));
      for (const char symbol : symbols) {
        symbols_.push_back({symbol, int64_t(model_.layer_ends.size())});
        ++blocks;
      }
      model_.config.model.pattern += symbols;
      model_.layer_ends.push_back(blocks);
    }
    if (blocks == 0) throw Error(model_.origin + ": the model has no layers");
  }

  void read_options(const std::string& symbol) {
    const Section block = file_.table("block").table(symbol);
    block.allow({"plugin", "options", "tensors"});
    const bool is_used = std::any_of(symbols_.begin(), symbols_.end(),
                                     [&](const auto& b) { return b.symbol == symbol[0]; });
    if (!is_used) return;
    model_.plugins[symbol] = block.text("plugin");
    const Section options = block.table("options");
    Options& to = model_.config.layers[symbol];
    for (const auto& [key, value] : options.table()) {
      const std::string where = options.where(key);
      const Json json = needed(value, where);
      switch (json.kind()) {
        case Json::Kind::boolean:
          to[key] = json.as_bool(where);
          break;
        case Json::Kind::integer:
          to[key] = json.as_int(where);
          break;
        case Json::Kind::real:
          to[key] = json.as_double(where);
          break;
        case Json::Kind::string:
          to[key] = json.as_string(where);
          break;
        default:
          throw Error(where + " must be a number, a boolean or a text, got " + json.describe());
      }
    }
  }

  // The options of a block as the variables of an expression.
  Json variables_of(const std::string& symbol) const {
    Json variables = Json::object();
    const auto found = model_.config.layers.find(symbol);
    if (found == model_.config.layers.end()) return variables;
    for (const auto& [key, value] : found->second) {
      std::visit([&, &name = key](const auto& v) { variables.set(name, Json(v)); }, value);
    }
    return variables;
  }

  TensorRule rule_of(const std::string& ours, const TomlValue& value, const std::string& prefix,
                     const Json& variables, const std::string& where) {
    TensorRule rule;
    rule.ours = ours;
    if (const auto* name = value.get<std::string>()) {
      rule.theirs = {prefix + *name};
      return rule;
    }
    const Section entry(Section::table_of(value, where), where);
    entry.allow({"name", "stack", "count", "rows"});
    if (entry.find("stack")) {
      rule.stacked = true;
      const Json count = value_of(entry.text("count"), entry.where("count"), variables);
      const int64_t n = positive(count, entry.where("count"), int64_t{1} << 24);
      n_stacked_ += n;
      if (n_stacked_ > kMostTensors) {
        throw Error(model_.origin + ": it asks for more than " + std::to_string(kMostTensors) +
                    " tensors of experts; the counts of layers and experts must be wrong");
      }
      for (int64_t i = 0; i < n; ++i) {
        rule.theirs.push_back(prefix +
                              replace_all(entry.text("stack"), "{index}", std::to_string(i)));
      }
    } else {
      rule.theirs = {prefix + entry.text("name")};
    }
    if (entry.find("rows")) {
      const std::string text = entry.text("rows");
      rule.rows = positive(value_of(text, entry.where("rows"), variables), entry.where("rows"),
                           int64_t{1} << 40);
      rule.rows_text =
          text + " = " + substitute(text, {config_, variables, model_.origin}, entry.where("rows"));
    }
    return rule;
  }

  void read_tensors() {
    const Section host = file_.table("host");
    for (const auto& [ours, value] : host.table()) {
      model_.tensors.push_back(rule_of(ours, value, "", Json(), host.where(ours)));
    }
    const Section stack = file_.table("stack");
    int64_t index = 0;
    for (const auto& [symbol, layer] : symbols_) {
      const std::string name(1, symbol);
      const Section tensors = file_.table("block").table(name).table("tensors");
      const Json variables = variables_of(name);
      const std::string prefix =
          replace_all(stack.text("prefix"), "{layer}", std::to_string(layer));
      for (const auto& [ours, value] : tensors.table()) {
        model_.tensors.push_back(rule_of("blocks." + std::to_string(index) + "." + ours, value,
                                         prefix, variables, tensors.where(ours)));
      }
      ++index;
    }
    if (const TomlValue* ignore = file_.find("ignore")) {
      for (const TomlValue& name : Section::list_of(*ignore, file_.where("ignore"))) {
        model_.ignored.push_back(Section::text_of(name, file_.where("ignore")));
      }
    }
  }

  struct PlacedSymbol {
    char symbol;
    int64_t layer;  // the foreign one
  };
  const Json& config_;
  Section file_;
  ForeignModel model_;
  std::vector<PlacedSymbol> symbols_;
  static constexpr int64_t kMostTensors = 1'000'000;
  int64_t n_stacked_ = 0;
};

std::string family_file(const std::string& type, const std::string& origin, std::string folder) {
  if (folder.empty()) folder = data_path("configs/families");
  const bool is_plain = !type.empty() && std::all_of(type.begin(), type.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  });
  const std::string path = folder + "/" + type + ".toml";
  std::error_code error;  // a name may be too long for the file system
  if (is_plain && fs::exists(path, error)) return path;
  std::vector<std::string> known;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().extension() == ".toml") known.push_back(entry.path().stem().string());
  }
  std::sort(known.begin(), known.end());
  throw Error(origin + ": model_type \"" + type + "\" is unknown; known: " + joined(known));
}

}  // namespace

ForeignModel read_foreign_config(const Json& config, const std::string& origin,
                                 const std::string& families) {
  const std::string& type = config.at("model_type", origin).as_string(origin + ": model_type");
  const std::string file = family_file(type, origin, families);
  const TomlTable table = parse_toml(read_file(file), file);
  return FamilyReader(config, origin, table, file).read();
}

ForeignModel read_foreign_config(const std::string& path, const std::string& families) {
  return read_foreign_config(read_json(path), path, families);
}

}  // namespace strata
