#include "plugins/host/loader.h"

#include <doctest/doctest.h>

#include <cstdlib>

#include "core/tensor/random.h"
#include "plugins/host/registry.h"
#include "tests/plugins/host/planted.h"

using namespace strata;

TEST_CASE("the handshake reads a plugin's card without loading it") {
  const PluginFile file = inspect_plugin(planted::path("planted_backward_hook"));
  CHECK(file.name == "planted_backward_hook");
  CHECK(file.symbol == 'e');
  CHECK(file.own_hooks == (kForward | kBackward));
  CHECK(file.hash.size() == 64);
  CHECK(file.sealed);
}

TEST_CASE("foreign builds are refused with both sides and the remedy") {
  auto refusal = [](const std::string& name) {
    try {
      inspect_plugin(planted::path(name));
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string("loaded");
  };
  CHECK(refusal("planted_abi").find("built for ABI 2.0, this strata has 1.0; rebuild") !=
        std::string::npos);
  CHECK(refusal("planted_minor").find("built for ABI 1.7, this strata has 1.0") !=
        std::string::npos);
  CHECK(refusal("planted_compiler").find("built as 'otherabi_asan', this strata as 'itanium") !=
        std::string::npos);
  CHECK(refusal("planted_no_plugin").find("not a plugin: it exports no strata_plugin_") !=
        std::string::npos);
  CHECK(refusal("missing").find("no such file") != std::string::npos);
}

TEST_CASE("a plugin with one byte changed or its end cut is refused") {
  const planted::Folder folder;
  const std::string bytes = planted::bytes_of(planted::path("planted_none"));
  std::string changed = bytes;
  changed[bytes.size() / 3] ^= 4;
  CHECK_THROWS_WITH_AS(inspect_plugin(folder.write("changed.so", changed)),
                       doctest::Contains("cut or damaged"), Error);
  for (const size_t keep : {size_t{0}, size_t{63}, bytes.size() / 2, bytes.size() - 500})
    CHECK_THROWS_AS(inspect_plugin(folder.write("cut.so", bytes.substr(0, keep))), Error);
}

TEST_CASE(
    "a stripped plugin loads, a stripped and mutated one is refused or loads, never crashes") {
  const planted::Folder folder;
  const std::string file =
      folder.write("stripped.so", planted::bytes_of(planted::path("planted_precision")));
  REQUIRE(std::system(("strip " + file).c_str()) == 0);
  const PluginFile stripped = inspect_plugin(file);
  CHECK_FALSE(stripped.sealed);
  CHECK(std::string(load_plugin(stripped).name) == "planted_precision");

  const std::string bytes = planted::bytes_of(file);
  Random random(3, stream_of("stripped"));
  int damaged = 0;
  for (int i = 0; i < 40; ++i) {
    std::string mutant = bytes;
    mutant[i % 4 ? 64 + random.below(4000) : random.below(64)] = char(random.next_u32());
    try {
      load_plugin(inspect_plugin(folder.write("m" + std::to_string(i) + ".so", mutant)));
    } catch (const Error& e) {
      damaged += std::string(e.what()).find("damaged") != std::string::npos;
    }
  }
  CHECK(damaged > 5);
}

TEST_CASE("a plugin without a checksum whose constructor crashes is refused when it is loaded") {
  const planted::Folder folder;
  const std::string file =
      folder.write("stripped.so", planted::bytes_of(planted::path("planted_constructor")));
  REQUIRE(std::system(("strip " + file).c_str()) == 0);
  CHECK_THROWS_WITH_AS(load_plugin(inspect_plugin(file)), doctest::Contains("loading it crashes"),
                       Error);
}

TEST_CASE("two kernels for one operation are an error that names both files") {
  load_plugin(inspect_plugin(planted::path("planted_none")));
  CHECK_THROWS_WITH_AS(load_plugin(inspect_plugin(planted::path("planted_clash"))),
                       doctest::Contains("has two cpu kernels"), Error);
}
