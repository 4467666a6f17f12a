// Any bytes as the index of a sharded model: tensors of the shard beside it, or an Error.
#include <cstdlib>

#include "core/io/safetensors.h"
#include "tests/fuzz/fuzz_folder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const strata::test::FuzzFolder folder;
  static const bool has_shard = [] {
    const float values[] = {1, 2};
    strata::write_safetensors(folder.path() + "/a.safetensors",
                              {{"x", strata::DType::f32, {2}, values, sizeof values}}, {});
    return true;
  }();
  const std::string index = folder.write("model.safetensors.index.json", data, size);
  try {
    const strata::TensorFiles files(folder.path());
    if (!has_shard || files.tensors().size() > 1) std::abort();
  } catch (const strata::Error&) {
  }
  return 0;
}
