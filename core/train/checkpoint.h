// Checkpoints: a folder per step with weights, optimizer state and cursor; the last good one is
// never removed before the next is complete.
//
//   <folder>/step-00000100/model.safetensors      parameters under their names
//                          optimizer.safetensors  m.<name>, v.<name>
//                          state.json             cursor, hashes of both files' content, resolved
//                          config
#pragma once

#include <string>
#include <vector>

#include "core/train/trainer.h"

namespace strata {

// Writes the checkpoint of this moment below `folder` and keeps the newest `keep` ones. Throws
// Error (resource for a full disk); the earlier checkpoints are untouched then. `extra` goes into
// state.json as a text (metrics so far, the resolved config).
STRATA_API std::string save_checkpoint(const std::string& folder, Trainer& trainer, int64_t keep,
                                       const std::string& extra);

// The newest complete checkpoint below `folder`, "" if there is none. Leftovers of killed writers
// are passed over; a complete one that is damaged is passed over too, and named in `damaged`.
STRATA_API std::string latest_checkpoint(const std::string& folder,
                                         std::vector<std::string>* damaged = nullptr);

// Restores weights, optimizer and cursor; returns `extra`. Throws Error naming the file and what is
// wrong: truncated, changed bytes, a tensor missing, of another shape, or not of this model.
STRATA_API std::string load_checkpoint(const std::string& path, Trainer& trainer);

// Only the weights, for evaluation and generation.
STRATA_API void load_weights(const std::string& path, Model& model);
// The config text that was saved with a checkpoint.
STRATA_API std::string checkpoint_extra(const std::string& path);

}  // namespace strata
