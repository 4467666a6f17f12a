// strata inspect: a config, a run folder, a foreign model's folder, or a file of tensors.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <iostream>

#include "core/io/families.h"
#include "core/io/json.h"
#include "core/io/safetensors.h"
#include "experiments/cli/config_args.h"
#include "experiments/cli/plugins.h"
#include "experiments/evaluate/inspect.h"
#include "experiments/report/table.h"
#include "experiments/run/run_folder.h"
#include "experiments/tasks/task.h"

namespace strata {
namespace {

namespace fs = std::filesystem;

struct InspectArgs {
  ConfigArgs config;  // its file is whatever is inspected
  std::vector<int64_t> contexts = {4096, 16384, 65536, 131072};
};

constexpr int64_t kBytes = 256;  // vocab_size where nothing says another one

Table cache_table(const ModelFacts& model, const ModelFacts& twin,
                  const std::vector<int64_t>& contexts) {
  Table table({{"context", true},
               {"state", true},
               {"pages", true},
               {"together", true},
               {"all attention", true}});
  for (const int64_t context : contexts) {
    const PoolBytes a = pool_bytes(model.cache, context), b = pool_bytes(twin.cache, context);
    table.add({{with_commas(context)},
               {format_bytes(size_t(a.state))},
               {format_bytes(size_t(a.pages))},
               {format_bytes(size_t(a.total()))},
               {format_bytes(size_t(b.total()))}});
  }
  return table;
}

Json to_json(const ModelFacts& model, const ModelFacts& twin,
             const std::vector<int64_t>& contexts) {
  Json symbols = Json::object(), rows = Json::array();
  for (const auto& [symbol, count] : model.by_symbol) symbols.set(symbol, count);
  for (const int64_t context : contexts) {
    const PoolBytes a = pool_bytes(model.cache, context), b = pool_bytes(twin.cache, context);
    Json row = Json::object();
    row.set("context", context).set("state_bytes", a.state).set("page_bytes", a.pages);
    row.set("all_attention_bytes", b.total());
    rows.push(std::move(row));
  }
  Json json = Json::object();
  json.set("pattern", model.pattern).set("hash", model.hash).set("blocks", model.blocks);
  json.set("d_model", model.d_model).set("vocab_size", model.vocab_size);
  json.set("parameters", model.parameters).set("parameters_by_symbol", std::move(symbols));
  json.set("all_attention", twin.pattern).set("all_attention_parameters", twin.parameters);
  json.set("cache", std::move(rows));
  return json;
}

int inspect_model(Config config, const InspectArgs& args, const Session& session) {
  if (config.model.pattern.empty())
    throw Error("nothing to inspect: give a config, a folder, a file of tensors, or --pattern");
  std::string note;
  if (config.model.vocab_size == 0) {
    config.model.vocab_size = kBytes;
    if (!config.task.name.empty()) try {
        config.model.vocab_size = make_task(config.task.name, config.task.options)->vocab_size();
      } catch (const Error& e) {
        note = "  (vocab_size 256 is a guess: " + std::string(e.what()) + ")";
      }
  }
  const auto plugins = open_plugins(session);
  const ModelFacts model = model_facts(config, *plugins);
  Config other = config;
  other.model.pattern = model.all_attention;
  const ModelFacts twin = model_facts(other, *plugins);
  if (session.json) {
    std::cout << to_json(model, twin, args.contexts).dump(2) << "\n";
    return kDone;
  }
  std::cout << "pattern     " << model.pattern << "\nstack       " << model.hash << "  "
            << model.blocks << " blocks: " << model.summary << "\nd_model     " << model.d_model
            << "\nvocab_size  " << model.vocab_size << note << "\nparameters  "
            << with_commas(model.parameters) << "\n";
  for (const auto& [symbol, count] : model.by_symbol) {
    const std::string name = symbol == "host" ? "embedding, norms, head" : plugins->name_of(symbol);
    std::cout << "  " << symbol << std::string(8 - std::min<size_t>(7, symbol.size()), ' ') << "  "
              << with_commas(count) << "  " << name << "\n";
  }
  std::cout << "\nbytes that one sequence keeps\n";
  cache_table(model, twin, args.contexts).print(std::cout, shows_colour(STDOUT_FILENO));
  std::cout << "all attention: " << twin.pattern << ", " << with_commas(twin.parameters)
            << " parameters\n";
  return kDone;
}

int inspect_tensors(const std::string& path, const Session& session) {
  const TensorFiles files(path);
  int64_t numbers = 0, bytes = 0;
  Json rows = Json::array();
  Table table({{"tensor"}, {"dtype"}, {"shape"}, {"bytes", true}});
  for (const StoredTensor* t : files.tensors()) {
    numbers += numel_of(t->shape, t->name);
    bytes += int64_t(t->bytes);
    table.add({{t->name},
               {safetensors_name(t->dtype)},
               {shape_text(t->shape)},
               {with_commas(int64_t(t->bytes))}});
    Json row = Json::object(), shape = Json::array();
    for (const int64_t d : t->shape) shape.push(d);
    row.set("name", t->name)
        .set("dtype", safetensors_name(t->dtype))
        .set("shape", std::move(shape));
    rows.push(std::move(row));
  }
  if (session.json) {
    std::cout << rows.dump(2) << "\n";
    return kDone;
  }
  table.print(std::cout, shows_colour(STDOUT_FILENO));
  std::cout << files.tensors().size() << " tensors, " << with_commas(numbers) << " numbers, "
            << format_bytes(size_t(bytes)) << "\n";
  return kDone;
}

int inspect_foreign(const std::string& path, const InspectArgs& args, const Session& session) {
  const ForeignModel model = read_foreign_config(path);
  if (!session.json) {
    std::cout << "family      " << model.family << "  (" << model.family_file << ")\n";
  }
  if (!model.needs.empty()) {
    std::string all;
    for (const std::string& need : model.needs) all += (all.empty() ? "" : ", ") + need;
    throw Error(path + ": Strata does not have all that this model needs: " + all);
  }
  return inspect_model(model.config, args, session);
}

int inspect(const InspectArgs& args, const Session& session) {
  const std::string& what = args.config.file;
  if (fs::is_directory(what)) {
    if (fs::exists(what + "/config.json"))
      return inspect_foreign(what + "/config.json", args, session);
    if (fs::exists(what + "/model.safetensors")) return inspect_tensors(what, session);
    if (!fs::exists(what + "/config.toml")) {
      throw Error(what +
                  ": expected a run folder (config.toml), a checkpoint (model.safetensors) or "
                  "a foreign model (config.json)");
    }
    if (const auto run = read_summary(what); run && !session.json) {
      std::cout << "run         " << run->outcome << "  " << run->metric_name << " "
                << fixed_text(run->metric, 4) << "  " << with_commas(run->steps) << " steps  "
                << duration_text(run->seconds) << "\n";
    }
    InspectArgs inner = args;
    inner.config.file = what + "/config.toml";
    return inspect_model(read_config(inner.config, session), args, session);
  }
  if (what.ends_with(".safetensors") || what.ends_with(".index.json"))
    return inspect_tensors(what, session);
  if (what.ends_with(".json")) return inspect_foreign(what, args, session);
  return inspect_model(read_config(args.config, session), args, session);
}

}  // namespace

void add_inspect_command(CLI::App& app, Session& session) {
  auto* command = app.add_subcommand("inspect", "show a config, run, foreign model or tensor file");
  auto args = std::make_shared<InspectArgs>();
  add_config_options(*command, args->config);
  command->add_option("--context", args->contexts, "context lengths of the cache table")
      ->delimiter(',')
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40))
      ->type_name("N,N,...");
  command->footer(R"(
Examples:
  strata inspect model.toml --context 4096,131072
  strata inspect --pattern "(M-)^3M*-" --d-model 512
  strata inspect runs/first
  strata inspect model.safetensors)");
  command->callback(
      [&session, args] { session.action = [&session, args] { return inspect(*args, session); }; });
}

}  // namespace strata
