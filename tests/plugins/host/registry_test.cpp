#include "plugins/host/registry.h"

#include <doctest/doctest.h>

#include <cstdlib>

#include "core/contract/plugin.h"
#include "tests/plugins/host/planted.h"

using namespace strata;

TEST_CASE("a layer is made by symbol and by name") {
  Registry registry({planted::path("planted_none")}, "");
  CHECK(registry.name_of("e") == "planted_none");
  CHECK(registry.find("planted_none").symbol == 'e');
  CHECK(registry.own_hooks("e") == kForward);
  CHECK(registry.preset("e").empty());
  const auto layer = registry.create("e", LayerConfig(8, 1, {{"high", 0.5}}, "block 0"));
  REQUIRE(layer->params().size() == 1);
  CHECK(layer->params()[0].name == "a");
  CHECK_THROWS_AS(registry.create("e", LayerConfig(8, 1, {{"groups", int64_t{3}}}, "block 0")),
                  Error);
}

TEST_CASE("an unknown symbol or name lists the known ones and names the nearest") {
  Registry registry({planted::path("planted_none")}, "");
  CHECK_THROWS_WITH_AS(registry.find("Q"), doctest::Contains("known are 'e' planted_none"), Error);
  CHECK_THROWS_WITH_AS(registry.find("planted_nine"),
                       doctest::Contains("the nearest is 'planted_none'"), Error);
  Registry empty({}, "/nowhere");
  CHECK_THROWS_WITH_AS(empty.find("M"), doctest::Contains("no plugins were found"), Error);
}

TEST_CASE("a folder gives its plugins, foreign libraries are passed over, broken ones remembered") {
  const planted::Folder folder;
  folder.write("a.so", planted::bytes_of(planted::path("planted_none")));
  folder.write("b.so", planted::bytes_of(planted::path("planted_no_plugin")));
  folder.write("planted_abi.so", planted::bytes_of(planted::path("planted_abi")));
  folder.write("notes.txt", "not a library");
  Registry registry({folder.str()}, "");
  CHECK(registry.plugins().size() == 1);
  CHECK(registry.refused().size() == 1);
  CHECK_THROWS_WITH_AS(registry.find("planted_abi"), doctest::Contains("built for ABI 2.0"), Error);
  const std::string table = layers_table(registry);
  CHECK(table.find("planted_none  e") != std::string::npos);
  CHECK(table.find("refused: ") != std::string::npos);
  CHECK_THROWS_AS(Registry({folder.str() + "/none"}, ""), Error);
  // The same content twice is one plugin.
  CHECK(Registry({folder.str(), planted::path("planted_none")}, "").plugins().size() == 1);
}

TEST_CASE("a plugin that the user names replaces the default folder's of the same name") {
  const planted::Folder house, own;
  const std::string bytes = planted::bytes_of(planted::path("planted_none"));
  house.write("planted_none.so", bytes);
  const std::string stripped = own.write("planted_none.so", bytes);
  REQUIRE(std::system(("strip " + stripped).c_str()) == 0);

  const Registry by_folder({own.str()}, house.str());
  CHECK(by_folder.find("planted_none").path == stripped);
  Registry by_file({}, house.str());
  CHECK(by_file.add_file(stripped) == "planted_none");
  CHECK(by_file.find("e").path == stripped);
  // Two that the user names still clash, and one that is refused has no stand-in.
  CHECK_THROWS_WITH_AS(by_file.add_file(planted::path("planted_none")),
                       doctest::Contains("two plugins claim"), Error);
  own.write("planted_none.so", "hello");
  CHECK_THROWS_WITH_AS(Registry({own.str()}, house.str()).find("planted_none"),
                       doctest::Contains("planted_none.so: not an ELF file"), Error);
}

TEST_CASE("a folder without plugins is named when a layer is missing") {
  const planted::Folder folder;
  CHECK_THROWS_WITH_AS(Registry({folder.str()}, "").find("U"), doctest::Contains("holds no plugin"),
                       Error);
}

TEST_CASE("two plugins with one symbol are an error that names both files") {
  try {
    Registry({planted::path("planted_none"), planted::path("planted_state")}, "");
    FAIL("accepted");
  } catch (const Error& e) {
    const std::string text = e.what();
    CHECK(text.find("planted_none.so") != std::string::npos);
    CHECK(text.find("planted_state.so") != std::string::npos);
    CHECK(text.find("the symbol 'e'") != std::string::npos);
  }
}

TEST_CASE("aliases bring preset options") {
  const auto aliases =
      parse_aliases("w{window=4096} l{window=64,sinks=4,scale=0.5,name=\"x\",qk=true}", "x.so");
  REQUIRE(aliases.size() == 2);
  CHECK(aliases[0].symbol == 'w');
  CHECK(std::get<int64_t>(aliases[0].preset.at("window")) == 4096);
  CHECK(aliases[1].preset.size() == 5);
  CHECK(std::get<double>(aliases[1].preset.at("scale")) == 0.5);
  CHECK(std::get<std::string>(aliases[1].preset.at("name")) == "x");
  for (const char* bad : {"w{", "w{=1}", "w{a=1", "w{a=b}", "w{a}"})
    CHECK_THROWS_AS(parse_aliases(bad, "x.so"), Error);
}

TEST_CASE("a CUDA file beside a plugin must carry the build id of that plugin") {
  const planted::Folder folder;
  const std::string so = folder.write("a.so", planted::bytes_of(planted::path("planted_none")));
  const std::string source = folder.write("c.c", "int cuda_part;");
  const std::string compile = "cc -shared -fPIC " + source + " -o " + folder.str() + "/a_cuda.so";
  REQUIRE(std::system((compile + " -Wl,--build-id=0x1234").c_str()) == 0);
  CHECK_THROWS_WITH_AS(inspect_plugin(so), doctest::Contains("of another build (1234)"), Error);
  const std::string id = Registry({planted::path("planted_none")}, "").find("e").build_id;
  REQUIRE(std::system((compile + " -Wl,--build-id=0x" + id).c_str()) == 0);
  CHECK_FALSE(inspect_plugin(so).cuda_path.empty());
}
