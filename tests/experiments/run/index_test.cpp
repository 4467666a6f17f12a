#include "experiments/run/index.h"

#include <doctest/doctest.h>
#include <sqlite3.h>

#include <filesystem>

#include "core/io/file.h"
#include "experiments/run/run_folder.h"
#include "tests/support/error_text.h"
#include "tests/support/temp_folder.h"

using namespace strata;

namespace {

// The first column of the first row.
std::string query(const std::string& path, const char* sql) {
  sqlite3* db = nullptr;
  sqlite3_stmt* statement = nullptr;
  std::string out = "no row";
  sqlite3_open_v2(path.c_str(), &db, SQLITE_OPEN_READONLY, nullptr);
  if (sqlite3_prepare_v2(db, sql, -1, &statement, nullptr) != SQLITE_OK)
    out = sqlite3_errmsg(db);
  else if (sqlite3_step(statement) == SQLITE_ROW)
    out = reinterpret_cast<const char*>(sqlite3_column_text(statement, 0));
  sqlite3_finalize(statement);
  sqlite3_close(db);
  return out;
}

}  // namespace

TEST_CASE("the index holds what the folders hold, and is rebuilt from them") {
  const test::TempFolder folder;
  for (const char* name : {"a", "b", "study/c"}) {
    const std::string run = folder / name;
    make_folders(run);
    RunSummary s;
    s.outcome = name[0] == 'b' ? "crash" : "ok";
    s.metric_name = "accuracy";
    s.metric = 0.25;
    s.steps = 20;
    write_summary(run, s);
    write_file(
        run + "/config.toml",
        "[model]\npattern = \"M*\"\n[task]\nname = \"mqar\"\n[train]\nseed = 7\nlr = 0.003\n");
    write_file(run + "/metrics.jsonl", "{\"step\": 10, \"loss\": 2.5}\n{\"step\": 20, \"lo");
  }
  make_folders(folder / "not_a_run");
  CHECK(rebuild_index(folder.path()) == 3);
  const std::string index = folder / "index.sqlite";
  CHECK(query(index, "select count(*) from runs where outcome = 'ok'") == "2");
  CHECK(query(index, "select pattern || task || seed from runs where folder = 'study/c'") ==
        "M*mqar7");
  CHECK(query(index, "select value from config where key = 'train.lr' limit 1") == "0.003");
  CHECK(query(index, "select sum(value) from points where name = 'loss'") == "7.5");
  std::filesystem::remove_all(folder / "a");
  CHECK(rebuild_index(folder.path()) == 2);
  CHECK(query(index, "select count(*) from runs") == "2");
}
