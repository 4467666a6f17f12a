#include "core/model/config.h"

#include <doctest/doctest.h>

#include <cstdio>
#include <fstream>

#include "core/model/config_schema.h"

using namespace strata;

namespace {

Config read(const std::string& text, std::vector<Override> overrides = {}) {
  return read_config({text, "x.toml", std::move(overrides), {}});
}

std::string refusal(const std::string& text, std::vector<std::string> sets = {}) {
  try {
    std::vector<Override> overrides;
    for (const std::string& s : sets) overrides.push_back(parse_override(s));
    read(text, overrides);
  } catch (const Error& e) {
    CHECK(std::string(e.what()).find('\n') == std::string::npos);
    return e.what();
  }
  return "accepted";
}

const char* const kStudy = R"(
[model]
pattern = "M-M*-"
d_model = 64
norm = "layernorm_1p"

[layers.M]
d_state = 16
dt_min = 1e-3
[layers."*"]
rope = false

[task]
name = "mqar"
n_pairs = 16
files = ["a/**", "b"]

[train]
steps = 1e3
betas = [0.9, 0.98]
recompute = ["M"]
memory_limit = "8GiB"

[ablate]
seeds = 5
grid = { "train.lr" = [1e-3, 3e-3], layers.M.d_state = [4, 8] }
variants = [
  { name = "small", pattern = "cM", layers.M.d_state = 2, expect = "<= 0.15" },
  { name = "hot", "train.lr" = 1e-2 },
]
)";

}  // namespace

TEST_CASE("config: defaults serve everything that is not said") {
  const Config c = read("[model]\npattern = \"M-\"\n[task]\nname = \"mqar\"\n");
  CHECK(c.model.pattern == "M-");
  CHECK(c.model.d_model == ModelConfig{}.d_model);
  CHECK(c.train.lr == TrainConfig{}.lr);
  CHECK_NOTHROW(require_runnable(c, "x.toml"));
  CHECK_THROWS_AS(require_runnable(read(""), "x.toml"), Error);
}

TEST_CASE("config: every section arrives in its struct") {
  const Config c = read(kStudy);
  CHECK(c.model.d_model == 64);
  CHECK(std::get<int64_t>(c.layers.at("M").at("d_state")) == 16);
  CHECK(std::get<double>(c.layers.at("M").at("dt_min")) == 1e-3);
  CHECK(std::get<bool>(c.layers.at("*").at("rope")) == false);
  CHECK(std::get<int64_t>(c.task.options.at("n_pairs")) == 16);
  CHECK(std::get<std::vector<std::string>>(c.task.options.at("files")).size() == 2);
  CHECK(c.train.steps == 1000);
  CHECK(c.train.betas[1] == 0.98);
  CHECK(c.train.recompute == std::vector<std::string>{"M"});
  CHECK(c.train.memory_limit == int64_t{8} << 30);
  CHECK(c.ablate.seeds == std::vector<int64_t>{0, 1, 2, 3, 4});
  REQUIRE(c.ablate.grid.size() == 2);
  CHECK(c.ablate.grid[0].first == "layers.M.d_state");
  CHECK(c.ablate.grid[1].first == "train.lr");
  CHECK(c.ablate.grid[1].second == std::vector<std::string>{"0.001", "0.003"});
  REQUIRE(c.ablate.variants.size() == 2);
  CHECK(c.ablate.variants[0].overrides ==
        std::vector<Override>{{"layers.M.d_state", "2"}, {"model.pattern", "\"cM\""}});
  CHECK(c.ablate.variants[0].expect == "<= 0.15");
  CHECK(c.ablate.variants[1].overrides == std::vector<Override>{{"train.lr", "0.01"}});
}

TEST_CASE("config: a study's overrides apply to the file they came from") {
  const Config study = read(kStudy);
  const Config cell = read(kStudy, study.ablate.variants[0].overrides);
  CHECK(cell.model.pattern == "cM");
  CHECK(std::get<int64_t>(cell.layers.at("M").at("d_state")) == 2);
  CHECK(std::get<double>(cell.layers.at("M").at("dt_min")) == 1e-3);
}

TEST_CASE("config: what is written reads back the same, and names it") {
  const Config c = read(kStudy);
  const std::string text = to_toml(c);
  CHECK(to_toml(read(text)) == text);
  CHECK(to_toml(read(to_toml(c, true))) == text);
  CHECK(config_hash(read(text)) == config_hash(c));
  for (const char* same : {"train.log_every=7", "train.checkpoint_every=9", "ablate.seeds=2"}) {
    CHECK(config_hash(read(text, {parse_override(same)})) == config_hash(c));
  }
  for (const char* other :
       {"train.lr=1", "layers.M.d_state=17", "task.n_pairs=4", "train.seed=9"}) {
    CHECK(config_hash(read(text, {parse_override(other)})) != config_hash(c));
  }
}

TEST_CASE("config: placement rules become the pattern that they mean") {
  const char* listed = "[model]\nplace = { base = \"M^8\", \"*\" = [2, 5] }\n";
  CHECK(read(listed).model.pattern == "MM*MM*MM");
  CHECK(read("[model]\nplace = { base = \"M^8\", \"*\" = \"period(4, 2)\" }\n").model.pattern ==
        "MM*MMM*M");
  CHECK(read("[model]\npattern = \"even(4, 0, 0.5)\"\n").model.pattern.size() == 4);
  CHECK(to_toml(read(to_toml(read(listed)))) == to_toml(read(listed)));
  CHECK(refusal("[model]\nplace = { \"*\" = [1] }").find("needs base") != std::string::npos);
  CHECK(refusal("[model]\npattern = \"M\"\nplace = { base = \"M\" }").find("both") !=
        std::string::npos);
  CHECK(refusal("[model]\nplace = { base = \"M\", \"*\" = 1 }").find("list of places") !=
        std::string::npos);
}

TEST_CASE("config: a pattern that does not parse is refused with a caret") {
  CHECK_THROWS_WITH_AS(read("[model]\npattern = \"M(-\"\n"), doctest::Contains("^"), Error);
  CHECK(config_hash(read("[model]\npattern = \"(M-)^2\"\n")) ==
        config_hash(read("[model]\npattern = \"M-M-\"\n")));
}

TEST_CASE("config: --set takes TOML values, bare words and a bare star") {
  std::vector<Override> sets;
  for (const char* s :
       {"train.lr=3e-3", "model.pattern=M-M*-", "task.name=mqar", "layers.*.rope=true",
        "layers.\"*\".window = 64", "train.betas=[0.8, 0.9]", "task.files=src/**"}) {
    sets.push_back(parse_override(s));
  }
  const Config c = read("", sets);
  CHECK(c.train.lr == 3e-3);
  CHECK(c.model.pattern == "M-M*-");
  CHECK(std::get<bool>(c.layers.at("*").at("rope")));
  CHECK(std::get<int64_t>(c.layers.at("*").at("window")) == 64);
  CHECK(c.train.betas[0] == 0.8);
  CHECK(std::get<std::string>(c.task.options.at("files")) == "src/**");
  CHECK_THROWS_AS(parse_override("train.lr"), Error);
  CHECK_THROWS_AS(parse_override("=3"), Error);
  CHECK_THROWS_AS(parse_override("train.betas=[1,"), Error);
}

TEST_CASE("config: each mistake is one sentence with place, expectation and remedy") {
  CHECK(refusal("[train]\nsteps = -1") == "x.toml:2: train.steps must be at least 1, got -1");
  CHECK(refusal("[train]\nsteps = \"a\"") == "x.toml:2: train.steps must be an integer, got \"a\"");
  CHECK(refusal("[model]\nd_model = 0").find("from 1 to") != std::string::npos);
  CHECK(refusal("[model]\nd_model = 3.5").find("an integer, got 3.5") != std::string::npos);
  CHECK(refusal("[train]\nlr = 1e30") == "accepted");
  CHECK(refusal("[train]\nsteps = 9223372036854775807").find("below") != std::string::npos);
  CHECK(refusal("[train]\nbatch_size = 1000000000").find("from 1 to") != std::string::npos);
  CHECK(refusal("[train]\nlr = nan").find("finite") != std::string::npos);
  CHECK(refusal("[train]\nlr = 0").find("greater than 0") != std::string::npos);
  CHECK(refusal("[train]\nstepps = 1") ==
        "x.toml:2: unknown key train.stepps; did you mean train.steps?");
  CHECK(refusal("[model]\nbatch_size = 1").find("did you mean train.batch_size?") !=
        std::string::npos);
  CHECK(refusal("[modle]\nd_model = 1") ==
        "x.toml:1: unknown section [modle]; did you mean [model]?");
  CHECK(refusal("lr = 1").find("the key is train.lr") != std::string::npos);
  CHECK(refusal("model = 1").find("must be a table") != std::string::npos);
  CHECK(refusal("[model]\nnorm = \"batchnorm\"").find("one of rmsnorm, ") != std::string::npos);
  CHECK(refusal("[layers]\nM = 1").find("[layers.M]") != std::string::npos);
  CHECK(refusal("[layers.M]\nx = [1]").find("layers.M.x must be") != std::string::npos);
  CHECK(refusal("[train]\nbatch_size = 10\naccumulate = 3").find("equal microbatches") !=
        std::string::npos);
  CHECK(refusal("[train]\nlr = 1e-3\nmin_lr = 1e-2").find("above train.lr") != std::string::npos);
  CHECK(refusal("[ablate]\nseeds = 0").find("from 1 to 1000") != std::string::npos);
  CHECK(refusal("[ablate]\nseeds = [1, 1]").find("distinct") != std::string::npos);
  CHECK(refusal("[ablate]\ngrid = { train.lr = 1 }").find("lists") != std::string::npos);
  CHECK(refusal("", {"train.lr=-1"}) == "--set: train.lr must be greater than 0, got -1");
  CHECK(refusal("[train]\nlr = 1", {"train.lr.x=1"}).find("not a table") != std::string::npos);
  CHECK(refusal("", {"train..lr=1"}).find("empty") != std::string::npos);
}

TEST_CASE("config: files that cannot be a config are refused") {
  CHECK_THROWS_AS(load_config("/nonexistent/x.toml"), Error);
  CHECK_THROWS_AS(load_config("/"), Error);
  CHECK_THROWS_AS(load_config("/dev/zero"), Error);
  const std::string path = std::string(STRATA_BINARY_DIR) + "/config_test_empty.toml";
  std::ofstream(path).close();
  CHECK_NOTHROW(load_config(path));
  std::remove(path.c_str());
}

TEST_CASE("config: the task's own check sees the table and may fill it") {
  const ConfigInput input{"[task]\nname = \"t\"\n", "x.toml", {}, [](TaskConfig& t) {
                            if (t.options.count("bad")) throw Error("unknown key task.bad");
                            t.options["n"] = int64_t{3};
                          }};
  CHECK(std::get<int64_t>(read_config(input).task.options.at("n")) == 3);
  ConfigInput bad = input;
  bad.overrides = {{"task.bad", "1"}};
  CHECK_THROWS_AS(read_config(bad), Error);
}

TEST_CASE("config: every key of the table has its help, and its default reads back") {
  for (const ConfigKey& key : config_keys()) {
    CAPTURE(key.full_name());
    CHECK(!key.help.empty());
    CHECK(!key.type.empty());
    if (key.full_name() == "ablate.grid") continue;  // empty by default, never empty when given
    Config c;
    CHECK_NOTHROW(key.set(c, key.get(Config{})));
    CHECK(to_toml(key.get(c)) == key.standard());
  }
}
