// `strata new-layer`: a folder with a layer that builds, passes the kit and can be studied at once.
#pragma once

#include <string>
#include <vector>

#include "core/model/layer_factory.h"

namespace strata {

struct NewLayer {
  std::string name;     // "gru": a lower-case word, the name of the plugin and of its files
  std::string symbol;   // "U": one character that a pattern may hold
  std::string folder;   // "": the name
  bool kernel = false;  // with an operation and CPU kernels of its own
};

// Writes the folder and returns its files. Throws Error for a name or symbol that cannot be one, a
// folder that holds something already, and a failing write.
std::vector<std::string> new_layer(const NewLayer& layer);

// One file of the templates, as built into the program.
struct TemplateFile {
  const char* folder;  // "layer" or "kernel"
  const char* name;    // "@NAME@.cpp"
  const char* text;
};
const std::vector<TemplateFile>& template_files();

}  // namespace strata
