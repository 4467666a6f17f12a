// `cmake --install` gives a tree that can be moved, with the first-party plugins and no others.
#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>

#include "core/io/file.h"
#include "tests/support/temp_folder.h"

using namespace strata;

TEST_CASE("an install tree runs where it is moved to, and holds the plugins of the tree alone") {
  const test::TempFolder folder;
  const auto shell = [](const std::string& command) { return std::system(command.c_str()); };
  REQUIRE(shell("cmake --install " STRATA_BINARY_DIR " --prefix " + (folder / "first") +
                " >/dev/null") == 0);
  std::filesystem::rename(folder / "first", folder / "second");
  REQUIRE(shell((folder / "second/bin/strata") + " layers >" + (folder / "layers")) == 0);
  const std::string layers = read_file(folder / "layers");
  for (const char* name : {"attention", "mamba2", "mlp", "moe", "short_conv"}) {
    CAPTURE(name);
    CHECK(layers.find(folder / ("second/plugins/" + std::string(name) + ".so")) !=
          std::string::npos);
  }
  for (const char* name : {"min_gru", "gated_mlp", "conv_mixer"}) {
    CAPTURE(name);
    CHECK(layers.find(name) == std::string::npos);
  }
  CHECK(std::filesystem::exists(folder / "second/share/strata/configs/families/llama.toml"));
  CHECK(std::filesystem::exists(folder / "second/include/strata/core/contract/plugin.h"));
}
