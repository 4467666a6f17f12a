// strata generate: text from a byte-level run.
#include <omp.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>

#include "core/io/json.h"
#include "core/train/checkpoint.h"
#include "experiments/cli/config_args.h"
#include "experiments/cli/plugins.h"
#include "experiments/evaluate/generate.h"
#include "experiments/tasks/task.h"

namespace strata {
namespace {

struct GenerateArgs {
  std::string folder;
  std::vector<Override> shorthands;
};

// The newest checkpoint of a run folder, or the folder itself when it is a checkpoint.
std::string checkpoint_of(const std::string& folder) {
  namespace fs = std::filesystem;
  if (!fs::exists(folder)) throw Error(folder + ": no such folder");
  if (fs::exists(folder + "/state.json")) return folder;
  std::vector<std::string> damaged;
  const std::string path = latest_checkpoint(folder + "/checkpoints", &damaged);
  if (!path.empty()) return path;
  if (!damaged.empty()) throw Error(damaged.front());
  throw Error(folder + ": has no checkpoint; expected a folder made by strata run");
}

int generate_text(const GenerateArgs& args, const Session& session) {
  const std::string checkpoint = checkpoint_of(args.folder);
  const Json extra = parse_json(checkpoint_extra(checkpoint), checkpoint);
  ConfigInput input;
  input.text = extra.at("config", checkpoint).as_string(checkpoint);
  input.origin = args.folder + "/config.toml";
  input.overrides = args.shorthands;
  for (const std::string& set : session.sets) input.overrides.push_back(parse_override(set));
  Config config = read_config(input);
  if (config.model.vocab_size == 0)
    config.model.vocab_size = make_task(config.task.name, config.task.options)->vocab_size();
  if (config.train.threads > 0) omp_set_num_threads(int(config.train.threads));

  const auto plugins = open_plugins(session);
  Model model(config, *plugins);
  prepare_generation(model, size_t(config.train.memory_limit));
  load_weights(checkpoint, model);
  const bool stream = !session.json;
  if (stream && !session.quiet) std::cout << config.generate.prompt;
  const std::string text = generate(model, config.generate, [&](char c) {
    if (stream) std::cout << c << std::flush;
    return bool(std::cout);
  });
  if (stream) {
    std::cout << "\n";
    return kDone;
  }
  // Bytes that are no UTF-8 are shown as they would be in Latin-1, so that JSON can hold them.
  std::string shown;
  if (is_utf8(text)) {
    shown = text;
  } else {
    for (const unsigned char c : text) {
      if (c < 0x80) {
        shown += char(c);
      } else {
        shown += char(0xc0 | (c >> 6));
        shown += char(0x80 | (c & 0x3f));
      }
    }
  }
  Json json = Json::object();
  json.set("prompt", config.generate.prompt).set("text", shown).set("utf8", is_utf8(text));
  std::cout << json.dump(2) << "\n";
  return kDone;
}

}  // namespace

void add_generate_command(CLI::App& app, Session& session) {
  auto* command =
      app.add_subcommand("generate", "continue a prompt with a trained byte-level model");
  auto args = std::make_shared<GenerateArgs>();
  command->add_option("run", args->folder, "a run folder, or one of its checkpoints")
      ->required()
      ->type_name("DIR");
  const auto add = [&](const char* flag, const char* key, bool text, const char* help) {
    command
        ->add_option_function<std::string>(
            flag,
            [args, flag, key, text](const std::string& value) {
              args->shorthands.push_back(shorthand(flag, key, value, text));
            },
            help)
        ->type_name(text ? "TEXT" : "VALUE");
  };
  add("--prompt", "generate.prompt", true, "the text to continue");
  add("--max-tokens", "generate.max_tokens", false, "bytes to draw");
  add("--temperature", "generate.temperature", false, "0: always the most likely byte");
  add("--top-k", "generate.top_k", false, "draw among so many; 0: all");
  add("--top-p", "generate.top_p", false, "draw among the most likely that sum to this");
  add("--seed", "generate.seed", false, "of the draws");
  command->footer(R"(
Example:
  strata generate runs/text --prompt "The " --max-tokens 200 --temperature 0.8 --seed 1)");
  command->callback([&session, args] {
    session.action = [&session, args] { return generate_text(*args, session); };
  });
}

}  // namespace strata
