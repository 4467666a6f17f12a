// Copies of stored golden folders, changed by a test.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "core/io/safetensors.h"
#include "tests/support/temp_folder.h"

namespace strata::test {

inline const std::string kGolden = STRATA_SOURCE_DIR "/tests/golden/";

// Copies config.json, golden.json and both files of tensors.
inline void copy_golden(const std::string& name, const TempFolder& to) {
  for (const char* file :
       {"config.json", "golden.json", "golden.safetensors", "model.safetensors"}) {
    std::filesystem::copy(kGolden + name + "/" + file, to / file);
  }
}

// Rewrites one file of tensors of a folder: `edit` may change a tensor, and says whether it stays.
// Data that it points a tensor to must live until this returns.
inline void edit_golden(const TempFolder& folder, const std::function<bool(StoredTensor&)>& edit,
                        const std::string& file = "golden.safetensors") {
  const Safetensors old(folder / file);
  std::vector<StoredTensor> tensors;
  for (StoredTensor tensor : old.tensors()) {
    if (edit(tensor)) tensors.push_back(tensor);
  }
  write_safetensors(folder / file, tensors);
}

}  // namespace strata::test
