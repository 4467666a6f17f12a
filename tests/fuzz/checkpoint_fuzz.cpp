// Any bytes as the state.json of a checkpoint: restored, or refused with an Error. The words
// MODEL_HASH and OPTIMIZER_HASH stand for the hashes of the files beside it, so that an input can
// get behind their comparison.
#include "core/io/json.h"
#include "core/train/checkpoint.h"
#include "tests/core/model/test_layers.h"
#include "tests/fuzz/fuzz_folder.h"

namespace {

using namespace strata;

class Zeros final : public DataSource {
 public:
  int64_t vocab_size() const override { return 5; }
  int64_t train_seq_len() const override { return 2; }
  int64_t eval_seq_len() const override { return 2; }
  int64_t eval_rows() const override { return 1; }
  bool documents() const override { return false; }
  std::string metric() const override { return "accuracy"; }
  void train_rows(uint64_t, int64_t, int64_t, int64_t batch, HostBatch& out) const override {
    fill(batch, out);
  }
  void eval_rows(uint64_t, int64_t, int64_t batch, HostBatch& out) const override {
    fill(batch, out);
  }

 private:
  static void fill(int64_t batch, HostBatch& out) {
    const std::vector<int32_t> zeros(size_t(2 * batch));
    out = {batch, 2, zeros, zeros, {}};
  }
};

Config tiny_config() {
  Config c;
  c.model.pattern = "-";
  c.model.d_model = 4;
  c.model.vocab_size = 5;
  c.train.batch_size = 1;
  return c;
}

struct Fixture {
  Fixture() : model(config, factory), trainer(model, source, config.train) {
    checkpoint = save_checkpoint(folder.path() + "/checkpoints", trainer, 1, "");
    const Json state = read_json(checkpoint + "/state.json");
    model_hash = state.at("model_hash", "state").as_string("state");
    optimizer_hash = state.at("optimizer_hash", "state").as_string("state");
  }
  test::FuzzFolder folder;
  Config config = tiny_config();
  testing::TestFactory factory;
  Zeros source;
  Model model;
  Trainer trainer;
  std::string checkpoint, model_hash, optimizer_hash;
};

std::string replaced(std::string text, std::string_view word, const std::string& by) {
  const size_t at = text.find(word);
  return at == std::string::npos ? text : text.replace(at, word.size(), by);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Fixture fixture;
  std::string text(reinterpret_cast<const char*>(data), size);
  text = replaced(std::move(text), "OPTIMIZER_HASH", fixture.optimizer_hash);
  text = replaced(std::move(text), "MODEL_HASH", fixture.model_hash);
  std::ofstream(fixture.checkpoint + "/state.json", std::ios::binary) << text;
  latest_checkpoint(fixture.folder.path() + "/checkpoints");
  try {
    load_checkpoint(fixture.checkpoint, fixture.trainer);
  } catch (const Error&) {
  }
  try {
    checkpoint_extra(fixture.checkpoint);
  } catch (const Error&) {
  }
  return 0;
}
