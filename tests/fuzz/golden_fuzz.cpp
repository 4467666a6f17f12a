// Any bytes as an operator of a golden folder: its JSON, a line "---", then the safetensors file.
// The checks give rows, or an Error.
#include <algorithm>
#include <string_view>

#include "core/model/layer_factory.h"
#include "experiments/evaluate/check_golden.h"
#include "tests/fuzz/fuzz_folder.h"

namespace {

using namespace strata;

class NoLayers final : public LayerFactory {
 public:
  std::unique_ptr<Layer> create(const std::string&, const LayerConfig&) override {
    throw Error("there are no layers");
  }
  std::string name_of(const std::string& symbol) override { return symbol; }
  Options preset(const std::string&) override { return {}; }
  uint32_t own_hooks(const std::string&) override { return 0; }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const test::FuzzFolder folder;
  constexpr std::string_view kLine = "\n---\n";
  const uint8_t* end = data + size;
  const uint8_t* line = std::search(data, end, kLine.begin(), kLine.end());
  const uint8_t* tensors = line == end ? end : line + kLine.size();
  folder.write("op.json", data, size_t(line - data));
  folder.write("op.safetensors", tensors, size_t(end - tensors));
  NoLayers layers;
  try {
    check_golden(folder.path(), layers);
  } catch (const Error&) {
  }
  return 0;
}
