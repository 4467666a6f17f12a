// NVIDIA's libraries, found when they are needed: a machine with a GPU and no toolkit still runs.
#pragma once

#include <string>
#include <vector>

#include "core/contract/error.h"

namespace strata {

// Where a library was found, or what was tried.
struct FoundLibrary {
  void* handle = nullptr;
  std::string path;  // of the file that was loaded
  std::string why;   // when there is none: the places that were tried
};

// Opens `name` ("libcublas.so.13"): by the loader's own search, beside libstrata_cuda.so, in the
// toolkit's usual places, and in the folders of the Python wheels.
FoundLibrary find_cuda_library(const std::string& name);

// The library, kept open. Throws Error naming it and the places that were tried.
void* open_cuda_library(const std::string& name);

// A function of it. Throws Error when it has none of that name.
void* cuda_symbol(void* library, const char* name, const std::string& library_name);

}  // namespace strata
