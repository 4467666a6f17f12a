#include "plugins/host/elf_symbols.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "core/contract/error.h"
#include "core/tensor/random.h"
#include "tests/plugins/host/planted.h"

using namespace strata;

namespace {

bool exports(const ElfFile& file, const std::string& name) {
  return std::any_of(file.symbols().begin(), file.symbols().end(),
                     [&](const ElfSymbol& s) { return s.name == name; });
}

}  // namespace

TEST_CASE("exported symbols, the build id and their bytes are read") {
  const std::string bytes = planted::bytes_of(planted::path("planted_no_plugin"));
  REQUIRE(bytes.size() > 1000);
  const ElfFile file(bytes, "x.so");
  CHECK(exports(file, "answer"));
  CHECK_FALSE(exports(file, "__cxa_finalize"));
  CHECK(file.imports("__cxa_finalize"));
  CHECK_FALSE(file.imports("answer"));
  CHECK(file.build_id().size() == 40);
}

TEST_CASE("text, an object of another kind and an empty file are told apart") {
  CHECK_THROWS_WITH_AS(ElfFile("", "x.so"), doctest::Contains("not an ELF file"), Error);
  CHECK_THROWS_WITH_AS(ElfFile("#!/bin/sh\n", "x.so"), doctest::Contains("not an ELF file"), Error);
  std::string bytes = planted::bytes_of(planted::path("planted_no_plugin"));
  std::string other = bytes;
  other[18] = 40;  // e_machine: ARM
  CHECK_THROWS_WITH_AS(ElfFile(other, "x.so"), doctest::Contains("another machine"), Error);
  other = bytes;
  other[16] = 1;  // e_type: an object file
  CHECK_THROWS_WITH_AS(ElfFile(other, "x.so"), doctest::Contains("no shared library"), Error);
}

TEST_CASE("a file cut anywhere is refused") {
  const std::string bytes = planted::bytes_of(planted::path("planted_no_plugin"));
  const size_t seal = 78;  // the last line of the file is not ELF's
  for (size_t keep = 0; keep < bytes.size() - seal; keep += keep < 256 ? 1 : 97)
    CHECK_THROWS_AS(ElfFile(bytes.substr(0, keep), "x.so"), Error);
}

TEST_CASE("ten thousand mutated files are read or refused, never more") {
  const std::string bytes = planted::bytes_of(planted::path("planted_none"));
  Random random(7, stream_of("mutations"));
  int refused = 0;
  for (int i = 0; i < 10000; ++i) {
    std::string mutant = bytes.substr(0, i % 3 ? bytes.size() : random.below(bytes.size()));
    for (uint64_t n = 1 + random.below(4); n > 0 && !mutant.empty(); --n) {
      const size_t head = std::min<size_t>(mutant.size(), random.below(2) ? 64 : 4096);
      mutant[random.below(head)] = char(random.next_u32());
    }
    try {
      const ElfFile file(mutant, "x.so");
      for (const ElfSymbol& s : file.symbols()) try {
          file.at(s.address, s.size);
        } catch (const Error&) {
        }
    } catch (const Error&) {
      ++refused;
    }
  }
  CHECK(refused > 3000);
}
