// The rows of one device: measured one after another, each giving its memory back.
#pragma once

#include <string>
#include <vector>

#include "core/contract/tensor.h"

namespace strata::bench {

struct DeviceOptions {
  Device device;
  DType dtype = DType::bf16;
  std::string only;                // a regular expression that finds itself in a row's name
  std::string json;                // file to write, "": none
  std::vector<std::string> peers;  // files of times to compare with
  std::vector<std::string> recompute;
  int64_t prefill_chunk = 8192;
  bool portable = false;  // kernels that every card has (core/kernels/cuda_path.h)
  bool list = false;      // names of the rows, nothing else
};

// Prints the table. Returns the process's exit code: 1 when a row could not be measured.
int run_device(const DeviceOptions& options);

}  // namespace strata::bench
