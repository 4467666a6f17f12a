// The cache under random use: every token of every sequence, however it came about by forks,
// snapshots and rollbacks, must have the logits of a plain forward over the same tokens.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "core/model/model.h"
#include "plugins/host/registry.h"

using namespace strata;

namespace {

constexpr int64_t kVocab = 19, kChunk = 48, kLongest = 150;

struct History {
  std::vector<int32_t> tokens;
  std::vector<std::vector<double>> logits;  // after each token
};

struct Open {
  History history;
  std::map<int, History> snapshots;
};

std::string random_pattern(Random& random) {
  const std::vector<std::string> kinds = {"M", "*", "-c", "M*", "M*-c", "*w{window=70}M"};
  const std::string& symbols = kinds[random.below(kinds.size())];
  std::string pattern;
  for (size_t i = 0; i < symbols.size(); ++i) {
    const size_t end = i + 1 < symbols.size() && symbols[i + 1] == '{' ? symbols.find('}', i) : i;
    pattern += symbols.substr(i, end - i + 1);
    i = end;
  }
  if (random.below(4) == 0) pattern = "(" + pattern + ")^2";
  return pattern;
}

Config config_for(const std::string& pattern) {
  Config c;
  c.model.pattern = pattern;
  c.model.d_model = 8;
  c.model.vocab_size = kVocab;
  c.model.dtype = "f64";
  c.model.init_std = 0.7;
  c.layers["M"] = {{"d_state", int64_t{4}},
                   {"head_dim", int64_t{4}},
                   {"n_groups", int64_t{2}},
                   {"chunk_size", int64_t{8}}};
  c.layers["*"] = {{"n_heads", int64_t{2}},
                   {"head_dim", int64_t{4}},
                   {"n_kv_heads", int64_t{1}},
                   {"rope", true}};
  return c;
}

class Player {
 public:
  Player(const std::string& pattern, LayerFactory& factory, uint64_t seed)
      : model_(config_for(pattern), factory), random_(seed, 7) {
    MemoryPlan plan = model_.plan({2, kChunk, false, false});
    const MemoryPlan full = model_.plan({1, kLongest, false, false});
    plan.activations = std::max(plan.activations, full.activations);
    plan.scratch = std::max(plan.scratch, full.scratch);
    model_.allocate(plan, false);
    model_.initialize(seed);
  }

  void play(int moves) {
    Cache made = model_.make_cache({.sequences = 40, .tokens = 1 << 14});
    Cache cache = std::move(made);  // a cache may move
    for (int i = 0; i < moves; ++i) move(cache);
    for (auto& [id, open] : open_) {
      compare(open.history);
      cache.close(id);
    }
    open_.clear();
    CHECK(cache.bytes_in_use() == 0);
    CHECK(cache.sequences() == 0);
  }

 private:
  int pick() {
    auto it = open_.begin();
    std::advance(it, random_.below(open_.size()));
    return it->first;
  }

  void move(Cache& cache) {
    const uint64_t kind = open_.empty() ? 0 : random_.below(10);
    if (kind == 0 && open_.size() < 4) {
      open_[cache.open()] = {};
    } else if (kind == 1 && open_.size() < 4) {
      const int from = pick();
      open_[cache.fork(from)] = {open_[from].history, {}};
    } else if (kind == 2) {
      const int id = pick();
      if (open_[id].snapshots.size() < 3)
        open_[id].snapshots[cache.snapshot(id)] = open_[id].history;
    } else if (kind == 3) {
      const int id = pick();
      Open& open = open_[id];
      if (open.snapshots.empty()) return;
      auto it = open.snapshots.begin();
      std::advance(it, random_.below(open.snapshots.size()));
      cache.rollback(id, it->first);
      open.history = it->second;
      open.snapshots.erase(std::next(it), open.snapshots.end());
      CHECK(cache.length(id) == int64_t(open.history.tokens.size()));
    } else if (kind == 4 && open_.size() > 1) {
      const int id = pick();
      compare(open_[id].history);
      cache.close(id);
      open_.erase(id);
    } else {
      append(cache, kind < 8 ? int64_t(1 + random_.below(3)) : int64_t(1 + random_.below(kChunk)));
    }
  }

  // The same number of tokens to one or two sequences.
  void append(Cache& cache, int64_t n) {
    std::vector<int> ids{pick()};
    const int other = pick();
    if (other != ids[0] && random_.below(2)) ids.push_back(other);
    std::erase_if(ids,
                  [&](int id) { return int64_t(open_[id].history.tokens.size()) + n > kLongest; });
    if (ids.empty()) return;
    std::vector<int32_t> tokens;
    for (size_t i = 0; i < ids.size() * size_t(n); ++i)
      tokens.push_back(int32_t(random_.below(kVocab)));
    const Tensor logits = model_.extend(
        cache, ids, view_of(tokens.data(), {int64_t(ids.size()), n}, DType::i32), true);
    for (size_t b = 0; b < ids.size(); ++b)
      for (int64_t t = 0; t < n; ++t) {
        History& h = open_[ids[b]].history;
        h.tokens.push_back(tokens[b * size_t(n) + size_t(t)]);
        const double* row = logits.row<double>(int64_t(b) * n + t);
        h.logits.emplace_back(row, row + kVocab);
      }
  }

  void compare(History& h) {
    if (h.tokens.empty()) return;
    const int64_t n = int64_t(h.tokens.size());
    const Tensor tokens = view_of(h.tokens.data(), {1, n}, DType::i32);
    const Tensor full = model_.logits({tokens, tokens, {}});
    double worst = 0;
    for (int64_t t = 0; t < n; ++t)
      for (int64_t v = 0; v < kVocab; ++v)
        worst = std::max(worst, std::abs(full.row<double>(t)[v] - h.logits[size_t(t)][size_t(v)]));
    CHECK(worst < 1e-9);
  }

  Model model_;
  Random random_;
  std::map<int, Open> open_;
};

}  // namespace

TEST_CASE("cache: a thousand random lives of sequences equal plain forwards") {
  Registry registry({}, std::string(STRATA_BINARY_DIR) + "/plugins");
  Random random(11, 1);
  for (int game = 0; game < 50; ++game) {
    const std::string pattern = random_pattern(random);
    CAPTURE(pattern);
    CAPTURE(game);
    Player player(pattern, registry, uint64_t(game));
    for (int life = 0; life < 20; ++life) player.play(20);
  }
}

TEST_CASE("cache: copies made for a fork need exactly the pages that are free") {
  Registry registry({}, std::string(STRATA_BINARY_DIR) + "/plugins");
  Model model(config_for("*"), registry);
  model.allocate(model.plan({2, 64, false, false}), false);
  model.initialize(1);
  Cache cache = model.make_cache({.sequences = 2, .tokens = 0});  // a page each
  const int a = cache.open();
  std::vector<int32_t> tokens(64, 3);
  model.extend(cache, std::span(&a, 1), view_of(tokens.data(), {1, 10}, DType::i32), false);
  const int ids[2] = {a, cache.fork(a)};
  // The first to write copies the shared page, the second then has it alone.
  model.extend(cache, ids, view_of(tokens.data(), {2, 3}, DType::i32), false);
  CHECK(cache.page_bytes_in_use() == 2 * cache.layout().groups[0].page_bytes);
  for (const int id : ids) cache.close(id);
  CHECK(cache.bytes_in_use() == 0);
}

TEST_CASE("cache: a call that failed leaves sequences that fork and go on apart") {
  Registry registry({}, std::string(STRATA_BINARY_DIR) + "/plugins");
  Model model(config_for("*M"), registry);
  model.allocate(model.plan({1, 64, false, false}), false);
  model.initialize(1);
  Cache cache = model.make_cache({.sequences = 4, .tokens = 1024});
  const int a = cache.open();
  std::vector<int32_t> tokens(64, 3);
  const auto extend = [&](int id, int64_t n, int32_t token) {
    std::fill(tokens.begin(), tokens.end(), token);
    const Tensor logits =
        model.extend(cache, std::span(&id, 1), view_of(tokens.data(), {1, n}, DType::i32), false);
    return std::vector<double>(logits.ptr<double>(), logits.ptr<double>() + kVocab);
  };
  extend(a, 60, 3);
  cache.begin(std::span(&a, 1), 40);  // a second page is taken, and then the forward fails
  const int b = cache.fork(a), lone = cache.open();
  extend(lone, 60, 3);
  extend(b, 2, 7);
  extend(a, 2, 5);
  extend(lone, 2, 7);
  CHECK(extend(b, 1, 1) == extend(lone, 1, 1));
}

TEST_CASE("cache: automatic snapshots make room for one another, and one alone can be given back") {
  Registry registry({}, std::string(STRATA_BINARY_DIR) + "/plugins");
  Model model(config_for("M*"), registry);
  model.allocate(model.plan({1, 64, false, false}), false);
  model.initialize(1);
  Cache cache = model.make_cache({.sequences = 3, .tokens = 1024, .snapshot_interval = 64});
  const int id = cache.open();
  std::vector<int32_t> tokens(64, 3);
  for (int i = 0; i < 6; ++i)
    model.extend(cache, std::span(&id, 1), view_of(tokens.data(), {1, 64}, DType::i32), false);
  CHECK(cache.length(id) == 384);
  CHECK(cache.truncate(id, 340) == 320);  // the two latest were kept, at 320 and 384
  const int64_t bytes = cache.bytes_in_use();
  const int mark = cache.snapshot(id);
  CHECK(cache.bytes_in_use() > bytes);
  cache.forget(id, mark);
  CHECK(cache.bytes_in_use() == bytes);
  CHECK_THROWS_WITH_AS(cache.forget(id, mark), doctest::Contains("has no snapshot"), Error);
  cache.close(id);
  CHECK(cache.bytes_in_use() == 0);
}

TEST_CASE("cache: a long prompt in chunks needs its pages and nothing more") {
  Registry registry({}, std::string(STRATA_BINARY_DIR) + "/plugins");
  std::map<int64_t, size_t> memory;
  for (const int64_t prompt : {1024, 16384}) {
    Model model(config_for("M*-"), registry);
    model.allocate(model.plan({1, 256, false, false}), false);
    model.initialize(1);
    Cache cache = model.make_cache({.sequences = 1, .tokens = prompt});
    const int id = cache.open();
    std::vector<int32_t> tokens(256);
    for (int64_t done = 0; done < prompt; done += 256) {
      for (int32_t& t : tokens) t = int32_t((done + (&t - tokens.data()) * 5) % kVocab);
      model.extend(cache, std::span(&id, 1), view_of(tokens.data(), {1, 256}, DType::i32), false);
    }
    memory[prompt] = model.context().memory().activations.peak() +
                     model.context().memory().scratch.peak() + size_t(cache.state_bytes_in_use());
    CHECK(cache.page_bytes_in_use() == prompt / kPageTokens * cache.layout().groups[0].page_bytes);
  }
  CHECK(memory[16384] == memory[1024]);
}

TEST_CASE(
    "cache: pages behind a window go back, and a full pool is an error that changes nothing") {
  Registry registry({}, std::string(STRATA_BINARY_DIR) + "/plugins");
  Model model(config_for("w{window=64}"), registry);
  model.allocate(model.plan({1, 64, false, false}), false);
  model.initialize(1);
  Cache cache = model.make_cache({.sequences = 1, .tokens = 256});
  const int id = cache.open();
  std::vector<int32_t> tokens(64, 3);
  for (int i = 0; i < 40; ++i)
    model.extend(cache, std::span(&id, 1), view_of(tokens.data(), {1, 64}, DType::i32), false);
  CHECK(cache.length(id) == 2560);
  CHECK(cache.page_bytes_in_use() <= 2 * cache.layout().groups[0].page_bytes);

  Model full(config_for("*"), registry);
  full.allocate(full.plan({1, 64, false, false}), false);
  full.initialize(1);
  Cache small = full.make_cache({.sequences = 1, .tokens = 64});
  const int one = small.open();
  full.extend(small, std::span(&one, 1), view_of(tokens.data(), {1, 64}, DType::i32), false);
  full.extend(small, std::span(&one, 1), view_of(tokens.data(), {1, 64}, DType::i32), false);
  const int64_t length = small.length(one), bytes = small.page_bytes_in_use();
  CHECK_THROWS_AS(
      full.extend(small, std::span(&one, 1), view_of(tokens.data(), {1, 64}, DType::i32), false),
      Error);
  CHECK(small.length(one) == length);
  CHECK(small.page_bytes_in_use() == bytes);
}
