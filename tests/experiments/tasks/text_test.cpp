#include "experiments/tasks/text.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <set>

#include "core/io/file.h"
#include "experiments/tasks/files.h"
#include "tests/support/error_text.h"
#include "tests/support/temp_folder.h"

using namespace strata;
using test::error_text;

namespace {

std::unique_ptr<Task> text(const std::vector<std::string>& files, TaskValues values = {}) {
  values["files"] = files;
  return make_task("text", values);
}

std::string message(const std::vector<std::string>& files, TaskValues values = {}) {
  return error_text([&] { text(files, values); });
}

// A temporary folder whose files may lie in folders of their own.
struct Folder : test::TempFolder {
  void write(const std::string& name, const std::string& bytes) const {
    make_folders(std::filesystem::path(*this / name).parent_path().string());
    TempFolder::write(name, bytes);
  }
};

}  // namespace

TEST_CASE("globs name files as a shell does") {
  CHECK(matches_component("*.cpp", "a.cpp"));
  CHECK(!matches_component("*.cpp", "a.cpp~"));
  CHECK(!matches_component("*", ".git"));
  CHECK(matches_component(".*", ".git"));
  CHECK(matches_component("a?c*[0-9].[!t]xt", "abcde7.uxt"));
  CHECK(!matches_component("a?c*[0-9].[!t]xt", "abcde7.txt"));
  CHECK(matches_component("a[", "a["));
  CHECK(matches_component("a**b*", "aXXb"));

  const Folder folder;
  for (const char* name : {"a.txt", "b.md", "x/c.txt", "x/y/d.txt", "x/.hidden/e.txt", ".f.txt"})
    folder.write(name, "data");
  const auto count = [&](const std::string& pattern) {
    return find_files({folder / pattern}).size();
  };
  CHECK(count("*.txt") == 1);
  CHECK(count("**/*.txt") == 3);
  CHECK(count("**") == 4);
  CHECK(count("x") == 2);
  CHECK(count("x/**/d.txt") == 1);
  CHECK(count("*/y/?.txt") == 1);
  CHECK(find_files({folder / "a.txt", folder / "*.txt"}).size() == 1);
}

TEST_CASE("text: labels are the next byte of the same document") {
  const Folder folder;
  std::set<std::string> documents;
  for (int i = 0; i < 8; ++i) {
    const std::string document(size_t(3 + 2 * i), char('a' + i));
    std::string counted = document;
    for (size_t k = 0; k < counted.size(); ++k) counted[k] = char('a' + i * 20 % 26 + k % 5);
    folder.write("d" + std::to_string(i), counted);
    documents.insert(counted);
  }
  const auto task = text({folder / "*"}, {{"seq_len", int64_t{40}}, {"validation", 0.25}});
  const auto& corpus = dynamic_cast<const Text&>(*task);
  CHECK(corpus.files(Split::eval).size() == 2);
  CHECK(corpus.files(Split::train).size() == 6);
  Batch batch(50, 40);
  task->fill(Split::train, 1, 0, 0, batch);
  for (int64_t b = 0; b < batch.batch; ++b) {
    const Example row = batch.row(b);
    CHECK(row.seq_idx[0] == 0);
    for (size_t t = 0; t + 1 < 40; ++t) {
      const bool same = row.seq_idx[t + 1] == row.seq_idx[t];
      CHECK(row.seq_idx[t + 1] - row.seq_idx[t] == !same);
      CHECK(row.labels[t] == (same ? row.tokens[t + 1] : kIgnore));
    }
    // What lies between two boundaries is a whole document.
    std::string part;
    for (size_t t = 0; t < 40; ++t) {
      if (t && row.seq_idx[t] != row.seq_idx[t - 1]) {
        if (row.seq_idx[t - 1] > 0) CHECK(documents.count(part));
        part.clear();
      }
      part += char(row.tokens[t]);
    }
  }
}

TEST_CASE("text: evaluation windows cover the validation files once") {
  const Folder folder;
  folder.write("train.txt", std::string(100, 't'));
  folder.write("one.txt", "abcdefghij");
  folder.write("two.txt", "0123456789012");
  const TaskValues options{
      {"seq_len", int64_t{4}},
      {"validation_files", std::vector<std::string>{folder / "one.txt", folder / "two.txt"}}};
  const auto task = text({folder / "*"}, options);
  REQUIRE(task->eval_size() == 6);  // 23 bytes, the last of which is only a label
  Batch batch(6, 4);
  task->fill(Split::eval, 1, 0, 0, batch);
  std::string bytes;
  int labels = 0;
  for (size_t i = 0; i < batch.tokens.size(); ++i) {
    if (i < 23) bytes += char(batch.tokens[i]);
    labels += batch.labels[i] != kIgnore;
  }
  CHECK(bytes == "abcdefghij0123456789012");
  CHECK(labels == 9 + 12);
  CHECK(batch.labels[9] == kIgnore);   // 'j' ends its document
  CHECK(batch.labels[23] == kIgnore);  // padding
  CHECK(batch.seq_idx[9] == 0);
  CHECK(batch.seq_idx[10] == 1);
  Batch train(8, 4);
  task->fill(Split::train, 1, 0, 0, train);
  for (int token : train.tokens) CHECK(token == 't');  // nothing of the validation files
}

TEST_CASE("text: the split does not depend on the other files' order, one file is cut") {
  const Folder folder;
  folder.write("only.txt", std::string(90, 'a') + std::string(10, 'b'));
  const auto task = text({folder / "only.txt"}, {{"seq_len", int64_t{16}}});
  const auto& corpus = dynamic_cast<const Text&>(*task);
  CHECK(corpus.bytes(Split::train) == 90);
  CHECK(corpus.bytes(Split::eval) == 10);
  Batch batch(4, 16);
  task->fill(Split::train, 1, 0, 0, batch);
  for (int token : batch.tokens) CHECK(token == 'a');
}

TEST_CASE("text: purity") {
  const auto task = text({STRATA_SOURCE_DIR "/core/**/*.h"}, {{"seq_len", int64_t{64}}});
  Batch whole(8, 64), part(3, 64);
  task->fill(Split::train, 5, 2, 0, whole);
  task->fill(Split::train, 5, 2, 4, part);
  CHECK(std::equal(part.tokens.begin(), part.tokens.end(), whole.tokens.begin() + 4 * 64));
}

TEST_CASE("text: missing, empty and odd files are one sentence") {
  const Folder folder;
  folder.write("empty/a", "");
  folder.write("short/a", "x");
  folder.write("short/b", "y");
  CHECK(message({}).find("needs files") != std::string::npos);
  CHECK(message({folder / "none.txt"}).find("does not exist") != std::string::npos);
  CHECK(message({folder / "*.zip"}).find("no file matches") != std::string::npos);
  CHECK(message({folder / "empty"}).find("is empty") != std::string::npos);
  CHECK(message({folder / "short"}).find("must have 2 bytes or more") != std::string::npos);
  CHECK(message({"/dev/null"}).find("neither a regular file nor a folder") != std::string::npos);
}
