// The model of the papers' small examples, M-M*-, through its whole life by the built program and
// loaded plugins: trained on text, interrupted, resumed, generated from, quantized.
#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <string>

#include "core/io/file.h"
#include "core/io/json.h"
#include "core/quant/int8.h"
#include "core/train/checkpoint.h"
#include "experiments/run/run_folder.h"
#include "experiments/run/task_source.h"
#include "experiments/tasks/task.h"
#include "plugins/host/registry.h"
#include "tests/experiments/cli/program.h"
#include "tests/support/temp_folder.h"

using namespace strata;
namespace fs = std::filesystem;

namespace {

std::string last_checkpoint(const std::string& run) {
  return latest_checkpoint(run + "/checkpoints");
}

}  // namespace

TEST_CASE("M-M*- is trained on text, resumed, generated from and quantized to int8") {
  const test::TempFolder folder;
  std::string text;
  for (int i = 0; i < 600; ++i) text += i % 3 ? "the cat sat on the mat. " : "a dog ran to a log. ";
  for (const char* name : {"a.txt", "b.txt", "c.txt"}) folder.write(name, text);
  const std::string base =
      "run --pattern 'M-M*-' --task text --files '" + (folder / "*.txt") +
      "' --d-model 48 --batch-size 8 --threads 1 --lr 3e-3 --quiet --set task.seq_len=64 "
      "--set task.eval_size=16 --set layers.M.head_dim=16 --set layers.M.d_state=16 "
      "--set 'layers.*.n_heads=2' --set train.eval_every=20 --set train.checkpoint_every=20 "
      "--set 'train.schedule=\"constant\"' --set train.warmup=5 ";
  const std::string whole = folder / "whole", parts = folder / "parts";

  // Trained in one go, and in two sittings: the same bits.
  test::Outcome o = test::strata(base + "--steps 80 --out " + whole);
  REQUIRE_MESSAGE(o.code == 0, o.err);
  o = test::strata(base + "--steps 40 --out " + parts);
  REQUIRE_MESSAGE(o.code == 0, o.err);
  o = test::strata(base + "--steps 80 --resume auto --out " + parts);
  REQUIRE_MESSAGE(o.code == 0, o.err);
  for (const char* file : {"/model.safetensors", "/optimizer.safetensors"})
    CHECK(read_file(last_checkpoint(whole) + file) == read_file(last_checkpoint(parts) + file));
  const auto summary = read_summary(whole);
  REQUIRE(summary);
  CHECK(summary->metric_name == "bits_per_byte");
  CHECK(summary->metric < 2);  // from 8

  // It continues what it has learned, the same way every time.
  const std::string say =
      "generate " + whole + " --prompt 'the cat sat on ' --max-tokens 40 --temperature 0 --quiet";
  o = test::strata(say);
  CHECK_MESSAGE(o.code == 0, o.err);
  CHECK(o.out.find("the") != std::string::npos);
  CHECK(test::strata(say).out == o.out);

  // int8 through the layers' own quantize hooks: projections only, and hardly any loss.
  Registry registry({}, std::string(STRATA_BINARY_DIR) + "/plugins");
  Config config = load_config(whole + "/config.toml", {}, resolve_task);
  const TaskSource source(config.task);
  config.model.vocab_size = source.vocab_size();
  Model model(config, registry);
  Trainer trainer(model, source, config.train);
  load_weights(last_checkpoint(whole), model);
  const double exact = trainer.evaluate().metric;
  CHECK(exact == doctest::Approx(summary->metric).epsilon(1e-12));
  int quantized = 0;
  for (const Site* site : model.stack().sites())
    for (ParamSlot& slot : site->layer->params()) {
      if (!site->layer->quantize(slot).quantize) continue;
      CHECK(slot.shape.rank >= 2);
      CHECK(int8_round_trip(slot.value).worst < 1.001);
      ++quantized;
    }
  CHECK(quantized >= 10);  // in and out of two mamba2, of the attention, of two mlp
  const double rounded = trainer.evaluate().metric;
  CHECK(rounded != exact);
  CHECK(rounded < exact + 0.02);
}
