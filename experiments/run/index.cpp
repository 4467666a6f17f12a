#include "experiments/run/index.h"

#include <sqlite3.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <vector>

#include "core/contract/error.h"
#include "core/io/file.h"
#include "core/io/json.h"
#include "core/io/toml.h"
#include "experiments/run/run_folder.h"

namespace strata {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSchema =
    "create table runs(folder text primary key, pattern text, task text, seed integer, "
    "outcome text, message text, metric_name text, metric real, reached_target integer, "
    "steps integer, seconds real, parameters integer, peak_bytes integer, config_hash text, "
    "device text, tokens_per_second real, planned_bytes integer, used_bytes integer);"
    "create table config(folder text, key text, value text, primary key(folder, key));"
    "create table points(folder text, step integer, name text, value real);"
    "create index points_by_name on points(name, folder, step);";

class Database {
 public:
  explicit Database(const std::string& path) {
    if (sqlite3_open(path.c_str(), &db_) != SQLITE_OK) fail();
    run("pragma journal_mode = off; pragma synchronous = off;");
  }
  ~Database() { sqlite3_close(db_); }
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  void run(const char* sql) {
    if (sqlite3_exec(db_, sql, nullptr, nullptr, nullptr) != SQLITE_OK) fail();
  }
  [[noreturn]] void fail() const {
    throw Error(std::string("index.sqlite: ") + sqlite3_errmsg(db_),
                sqlite3_errcode(db_) == SQLITE_FULL ? ErrorKind::resource : ErrorKind::input);
  }
  sqlite3* handle() const { return db_; }

 private:
  sqlite3* db_ = nullptr;
};

// A prepared insertion; `add` takes the columns in order.
class Insert {
 public:
  Insert(Database& db, const char* sql) : db_(db) {
    if (sqlite3_prepare_v2(db.handle(), sql, -1, &statement_, nullptr) != SQLITE_OK) db.fail();
  }
  ~Insert() { sqlite3_finalize(statement_); }
  Insert(const Insert&) = delete;
  Insert& operator=(const Insert&) = delete;

  template <typename... Values>
  void add(const Values&... values) {
    int column = 0;
    (bind(++column, values), ...);
    if (sqlite3_step(statement_) != SQLITE_DONE) db_.fail();
    sqlite3_reset(statement_);
  }

 private:
  void bind(int column, const std::string& text) {
    sqlite3_bind_text(statement_, column, text.c_str(), int(text.size()), SQLITE_TRANSIENT);
  }
  void bind(int column, int64_t value) { sqlite3_bind_int64(statement_, column, value); }
  void bind(int column, double value) {
    if (std::isnan(value))
      sqlite3_bind_null(statement_, column);
    else
      sqlite3_bind_double(statement_, column, value);
  }
  Database& db_;
  sqlite3_stmt* statement_ = nullptr;
};

using Pairs = std::vector<std::pair<std::string, std::string>>;

// Every key of a run's config.toml; nothing where there is none.
Pairs config_of(const std::string& folder) {
  Pairs out;
  std::error_code error;
  const std::string path = folder + "/config.toml";
  if (fs::is_regular_file(path, error)) try {
      out = toml_leaves(parse_toml(read_file(path), path));
    } catch (const Error&) {
      out.clear();
    }
  return out;
}

// The value of a key without the quotes that TOML writes.
std::string value_of(const Pairs& config, const std::string& key) {
  for (const auto& [name, value] : config)
    if (name == key) {
      const TomlValue parsed = parse_toml_value(value, key);
      if (const auto* text = parsed.get<std::string>()) return *text;
      return value;
    }
  return "";
}

void add_points(Insert& points, const std::string& folder, const std::string& name) {
  std::ifstream file(folder + "/metrics.jsonl");
  for (std::string line; std::getline(file, line);) try {
      const Json json = parse_json(line, name);
      const int64_t step = json.at("step", name).as_int(name);
      for (const auto& member : json.as_object(name))
        if (member.key != "step" && member.value.is_number())
          points.add(name, step, member.key, member.value.as_double(name));
    } catch (const Error&) {  // a line that a killed run left unfinished
    }
}

std::vector<std::string> run_folders(const std::string& root) {
  std::vector<std::string> folders;
  std::error_code error;
  for (fs::recursive_directory_iterator
           it(root, fs::directory_options::skip_permission_denied, error),
       end;
       !error && it != end; it.increment(error))
    if (it->path().filename() == "result.json")
      folders.push_back(it->path().parent_path().string());
  std::sort(folders.begin(), folders.end());
  return folders;
}

}  // namespace

int64_t rebuild_index(const std::string& root) {
  const std::string temporary = root + "/index.sqlite.tmp-" + std::to_string(::getpid());
  std::remove(temporary.c_str());
  int64_t count = 0;
  try {
    Database db(temporary);
    db.run(kSchema);
    db.run("begin");
    {
      Insert runs(db, "insert into runs values(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)");
      Insert settings(db, "insert or replace into config values(?,?,?)");
      Insert points(db, "insert into points values(?,?,?,?)");
      for (const std::string& folder : run_folders(root)) {
        const auto s = read_summary(folder);
        if (!s) continue;
        const std::string name = fs::relative(folder, root).string();
        const Pairs config = config_of(folder);
        const std::string seed = value_of(config, "train.seed");
        runs.add(name, value_of(config, "model.pattern"), value_of(config, "task.name"),
                 seed.empty() ? int64_t{0} : int64_t{std::stoll(seed)}, s->outcome, s->message,
                 s->metric_name, s->metric, int64_t{s->reached_target}, s->steps, s->seconds,
                 s->parameters, s->peak_bytes, s->config_hash, s->device, s->tokens_per_second,
                 s->planned_bytes, s->used_bytes);
        for (const auto& [key, value] : config) settings.add(name, key, value);
        add_points(points, folder, name);
        ++count;
      }
    }
    db.run("commit");
  } catch (...) {
    std::remove(temporary.c_str());
    throw;
  }
  if (std::rename(temporary.c_str(), (root + "/index.sqlite").c_str()) != 0)
    throw Error("cannot write '" + root + "/index.sqlite'");
  return count;
}

}  // namespace strata
