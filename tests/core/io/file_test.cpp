#include "core/io/file.h"

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "core/model/plan.h"
#include "tests/support/error_text.h"
#include "tests/support/temp_folder.h"

namespace fs = std::filesystem;
using namespace strata;
using strata::test::error_text;
using strata::test::TempFolder;

namespace {

size_t entries(const std::string& folder) {
  return size_t(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

// Runs `body` in a child; its exit status.
template <class F>
int in_child(F&& body) {
  const pid_t pid = ::fork();
  if (pid == 0) ::_exit(body());
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

TEST_CASE("file: reading says what is wrong with a path") {
  const TempFolder folder;
  CHECK(error_text([&] { read_file(folder / "none"); }) == folder / "none: there is no such file");
  CHECK(error_text([&] { read_file(folder.path()); }) ==
        folder.path() + ": expected a file, got a folder");
  CHECK(error_text([&] { read_file("/dev/zero"); }).find("regular file") != std::string::npos);
  const std::string path = folder.write("big", std::string(100, 'x'));
  CHECK(error_text([&] { read_file(path, 10); }) == path + ": expected at most 10 bytes, got 100");
  CHECK(read_file(path).size() == 100);
  const MappedFile map(path);
  CHECK(map.size() == 100);
  CHECK(map.data()[99] == std::byte{'x'});
  CHECK(MappedFile(folder.write("empty", "")).size() == 0);
  CHECK_THROWS_AS(MappedFile(folder / "none"), Error);
}

TEST_CASE("file: a write appears whole or not at all") {
  const TempFolder folder;
  const std::string path = folder.write("a", "old");
  {
    AtomicFile file(path);
    file.write("new, but never committed");
  }
  CHECK(read_file(path) == "old");
  const std::string big(300'000, 'b');
  AtomicFile file(path);
  file.write("head");
  file.write(big);
  file.write("tail");
  CHECK(read_file(path) == "old");
  file.commit();
  CHECK(read_file(path) == "head" + big + "tail");
  CHECK(entries(folder.path()) == 1);
}

TEST_CASE("file: an unwritable place is one sentence") {
  const std::string text = error_text([] { write_file("/proc/strata_no_such", "x"); });
  CHECK(text.starts_with("/proc/strata_no_such: cannot be written: "));
  CHECK(error_text([] { write_file("/nowhere/at/all", "x"); }).ends_with("make the folder first"));
  const TempFolder folder;
  folder.write("f", "x");
  CHECK(error_text([&] { make_folders(folder / "f/g"); }).find("cannot be made a folder") !=
        std::string::npos);
}

TEST_CASE("file: a full disk is a resource error and leaves the old file") {
  const TempFolder folder;
  const std::string path = folder.write("a", "old");
  const int status = in_child([&] {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{100'000, 100'000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    try {
      write_file(path, std::string(1'000'000, 'n'));
    } catch (const Error& error) {
      return error.kind() == ErrorKind::resource ? 3 : 2;
    }
    return 0;
  });
  CHECK(status == 3);
  CHECK(read_file(path) == "old");
  CHECK(entries(folder.path()) == 1);
}

TEST_CASE("file: a folder is replaced in one step") {
  const TempFolder folder;
  const std::string path = folder / "step";
  for (const char* content : {"one", "two"}) {
    AtomicFolder next(path);
    write_file(next.temporary() + "/w", content);
    fs::create_directory(next.temporary() + "/deep");
    write_file(next.temporary() + "/deep/v", content);
    next.commit();
    CHECK(read_file(path + "/w") == content);
    CHECK(read_file(path + "/deep/v") == content);
  }
  { AtomicFolder dropped(path + "/"); }
  CHECK(read_file(path + "/w") == "two");
  CHECK(entries(folder.path()) == 1);
  folder.write("plain", "x");
  CHECK(error_text([&] { AtomicFolder bad(folder / "plain"); }).find("got a file") !=
        std::string::npos);
}

TEST_CASE("file: what a killed process left is settled") {
  const TempFolder folder;
  const std::string path = folder / "step";
  const int status = in_child([&] {
    AtomicFolder next(path);
    write_file(next.temporary() + "/w", "half");
    ::raise(SIGKILL);
    return 0;
  });
  CHECK(status == 128 + SIGKILL);
  CHECK(entries(folder.path()) == 1);
  const pid_t gone = ::fork();
  if (gone == 0) ::_exit(0);
  ::waitpid(gone, nullptr, 0);
  // Killed between the two renames of a file system without exchange: the old one is the good one.
  fs::create_directory(path + ".old-" + std::to_string(gone));
  folder.write("step.old-" + std::to_string(gone) + "/w", "good");
  fs::create_directory(path + ".tmp-1");  // process 1 runs: not ours to remove
  settle_folder(path);
  CHECK(read_file(path + "/w") == "good");
  CHECK(entries(folder.path()) == 2);
}

#ifndef __SANITIZE_ADDRESS__
TEST_CASE("what is forgotten of a map leaves memory, and is there again when it is read") {
  const test::TempFolder folder;
  const std::string path = folder.write("large", std::string(32 << 20, 'x'));
  const MappedFile file(path);
  const auto sum = [&] {
    size_t sum = 0;
    for (size_t i = 0; i < file.size(); i += 512) sum += size_t(file.data()[i]);
    return sum;
  };
  const size_t before = resident_memory();
  const size_t expected = sum();
  CHECK(resident_memory() > before + (24 << 20));
  file.forget(file.data(), file.size());
  CHECK(resident_memory() < before + (8 << 20));
  CHECK(sum() == expected);
  char elsewhere = 7;
  file.forget(&elsewhere, 1);  // not of the map: left alone
  CHECK(elsewhere == 7);
}
#endif
