// libFuzzer entry of the safetensors reader: any bytes give tensors inside the file, or an Error.
#include "core/io/safetensors.h"
#include "tests/fuzz/fuzz_folder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const strata::test::FuzzFolder folder;
  const std::string path = folder.write("model.safetensors", data, size);
  try {
    const strata::Safetensors file(path);
    for (const strata::StoredTensor& tensor : file.tensors()) {
      static volatile uint8_t sum;  // touches every byte, so that the sanitizer sees a bad range
      for (size_t i = 0; i < tensor.bytes; ++i) sum = static_cast<const uint8_t*>(tensor.data)[i];
    }
  } catch (const strata::Error&) {
  }
  return 0;
}
