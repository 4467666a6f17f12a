#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <thread>

#include "experiments/tasks/draw.h"
#include "experiments/tasks/task.h"
#include "tests/support/error_text.h"

using namespace strata;

namespace {

Batch filled(const Task& task, int64_t rows, Split split = Split::train, uint64_t seed = 1,
             int64_t step = 0, int64_t first = 0) {
  Batch batch(rows, task.seq_len(split));
  task.fill(split, seed, step, first, batch);
  return batch;
}

std::string message(const std::string& task, const TaskValues& values) {
  return test::error_text([&] { make_task(task, values); });
}

}  // namespace

TEST_CASE("mqar: keys, values, slots and labels are those of the definition") {
  const int64_t V = 64, T = 48, K = 5;
  const auto task = make_task("mqar", {{"vocab_size", V}, {"seq_len", T}, {"n_pairs", K}});
  Batch batch = filled(*task, 200);
  for (int64_t b = 0; b < batch.batch; ++b) {
    const Example row = batch.row(b);
    std::map<int, int> value_of;
    std::set<int> values;
    for (int64_t i = 0; i < K; ++i) {
      const int key = row.tokens[size_t(2 * i)], value = row.tokens[size_t(2 * i + 1)];
      CHECK((key >= 1 && key < V / 2));
      CHECK((value >= V / 2 && value < V));
      value_of[key] = value;
      values.insert(value);
    }
    CHECK(value_of.size() == K);
    CHECK(values.size() == K);
    std::set<int> asked;
    for (int64_t t = 0; t < T; ++t) {
      const int token = row.tokens[size_t(t)], label = row.labels[size_t(t)];
      if (label == kIgnore) {
        if (t >= 2 * K) CHECK(token == 0);
        continue;
      }
      CHECK(t >= 2 * K);
      CHECK(t % 2 == 0);
      CHECK(value_of.at(token) == label);
      asked.insert(token);
    }
    CHECK(asked.size() == K);  // every key is asked for exactly once
    for (int seq : row.seq_idx) CHECK(seq == 0);
  }
  CHECK(task->chance() == doctest::Approx(1.0 / 32));
  CHECK(task->in_context_floor() == doctest::Approx(0.2));
}

// The first key's slot has exactly the distribution p_g ~ alpha g^(alpha - 1).
TEST_CASE("mqar: the gaps follow the power law") {
  for (const double alpha : {0.01, 0.5}) {
    const int64_t T = 64, K = 4, S = (T - 2 * K) / 2, n = 20000;
    const auto task = make_task(
        "mqar", {{"vocab_size", int64_t{128}}, {"seq_len", T}, {"n_pairs", K}, {"alpha", alpha}});
    std::vector<double> expected(size_t(S), 0), counted(size_t(S), 0);
    double sum = 0;
    for (int64_t g = 1; g <= S; ++g) sum += expected[size_t(g - 1)] = std::pow(g, alpha - 1);
    Batch batch = filled(*task, n);
    for (int64_t b = 0; b < n; ++b) {
      const Example row = batch.row(b);
      const int first_key = row.tokens[0];
      for (int64_t t = 2 * K; t < T; ++t)
        if (row.tokens[size_t(t)] == first_key) ++counted[size_t((t - 2 * K) / 2)];
    }
    for (size_t g = 0; g < size_t(S); ++g) {
      const double p = expected[g] / sum;
      CHECK(std::abs(counted[g] / n - p) < 5 * std::sqrt(p / n));
    }
  }
}

TEST_CASE("mqar: passes show the pairs again, random fillers are without loss") {
  const auto task = make_task("mqar", {{"vocab_size", int64_t{64}},
                                       {"seq_len", int64_t{40}},
                                       {"n_pairs", int64_t{4}},
                                       {"passes", int64_t{2}},
                                       {"random_non_queries", true}});
  Batch batch = filled(*task, 20);
  bool filler = false;
  for (int64_t b = 0; b < batch.batch; ++b) {
    const Example row = batch.row(b);
    CHECK(std::equal(row.tokens.begin(), row.tokens.begin() + 8, row.tokens.begin() + 8));
    int labels = 0;
    for (size_t t = 16; t < 40; ++t) {
      labels += row.labels[t] != kIgnore;
      filler |= row.labels[t] == kIgnore && row.tokens[t] != 0;
    }
    CHECK(labels == 4);
  }
  CHECK(filler);
}

TEST_CASE("weighted draws without replacement follow the sequential scheme") {
  // P(first = 0, second = 1) = w0 / W * w1 / (W - w0)
  const std::vector<double> w{3, 2, 1};
  int hits = 0;
  const int n = 40000;
  for (int i = 0; i < n; ++i) {
    Random random(5, 9, uint64_t(i) * 100);
    const auto order = draw_weighted(random, w, 3);
    hits += order[0] == 0 && order[1] == 1;
  }
  const double p = 3.0 / 6 * 2 / 3;
  CHECK(std::abs(double(hits) / n - p) < 5 * std::sqrt(p * (1 - p) / n));
}

TEST_CASE("selective copying: markers ask for the data tokens in order") {
  const auto task = make_task("selective_copy", {});
  Batch batch = filled(*task, 500);
  std::vector<int> places(26, 0);
  for (int64_t b = 0; b < batch.batch; ++b) {
    const Example row = batch.row(b);
    std::vector<int> data;
    for (size_t t = 0; t < 26; ++t) {
      CHECK((row.tokens[t] >= 0 && row.tokens[t] < 15));
      CHECK(row.labels[t] == kIgnore);
      if (row.tokens[t] == 0) continue;
      data.push_back(row.tokens[t]);
      ++places[t];
    }
    CHECK(data.size() == 6);
    for (size_t j = 0; j < 6; ++j) {
      CHECK(row.tokens[26 + j] == 15);
      CHECK(row.labels[26 + j] == data.at(j));
    }
  }
  for (int count : places) CHECK(std::abs(count - 500 * 6 / 26.0) < 50);  // uniform places
}

TEST_CASE("induction: the special token stands twice and asks for its successor") {
  const auto task = make_task("induction", {{"eval_seq_len", int64_t{128}}});
  for (const Split split : {Split::train, Split::eval}) {
    Batch batch = filled(*task, 300, split);
    CHECK(batch.seq_len == (split == Split::train ? 32 : 128));
    std::set<size_t> places;
    for (int64_t b = 0; b < batch.batch; ++b) {
      const Example row = batch.row(b);
      CHECK(std::count(row.tokens.begin(), row.tokens.end(), 15) == 2);
      CHECK(row.tokens.back() == 15);
      const size_t place =
          size_t(std::find(row.tokens.begin(), row.tokens.end(), 15) - row.tokens.begin());
      places.insert(place);
      CHECK(row.labels.back() == row.tokens[place + 1]);
      CHECK(std::count(row.labels.begin(), row.labels.end(), kIgnore) == batch.seq_len - 1);
    }
    CHECK(*places.begin() == 0);
    if (split == Split::train) CHECK(*places.rbegin() == 29);
  }
}

TEST_CASE("generation is a pure function of (split, seed, step, index)") {
  for (const char* name : {"mqar", "selective_copy", "induction"}) {
    CAPTURE(name);
    const auto task = make_task(name, {});
    const Batch whole = filled(*task, 12, Split::train, 7, 3);
    Batch other = filled(*task, 5, Split::train, 7, 3, 4);  // rows 4..8, another batch size
    const auto part = [&](const std::vector<int32_t>& all) {
      return std::vector<int32_t>(all.begin() + 4 * whole.seq_len, all.begin() + 9 * whole.seq_len);
    };
    CHECK(other.tokens == part(whole.tokens));
    CHECK(other.labels == part(whole.labels));
    Batch from_thread;
    std::thread([&] { from_thread = filled(*task, 12, Split::train, 7, 3); }).join();
    CHECK(from_thread.tokens == whole.tokens);
    CHECK(filled(*task, 12, Split::train, 8, 3).tokens != whole.tokens);
    CHECK(filled(*task, 12, Split::train, 7, 4).tokens != whole.tokens);
    CHECK(filled(*task, 12, Split::eval, 7, 3).tokens != whole.tokens);
    std::set<std::vector<int32_t>> rows;  // no example is repeated
    for (int64_t step = 0; step < 20; ++step) {
      Batch batch = filled(*task, 20, Split::train, 7, step);
      for (int64_t b = 0; b < 20; ++b) {
        const auto tokens = batch.row(b).tokens;
        rows.insert({tokens.begin(), tokens.end()});
      }
    }
    CHECK(rows.size() == 400);
  }
}

TEST_CASE("task options: mistakes are named with the remedy") {
  CHECK(message("mqa", {}).find("mqar, selective_copy, induction, text") != std::string::npos);
  CHECK(message("mqar", {{"n_pair", int64_t{3}}}).find("nearest is 'n_pairs'") !=
        std::string::npos);
  CHECK(message("mqar", {{"n_pairs", 1.5}}).find("must be an integer, got 1.5 (number)") !=
        std::string::npos);
  CHECK(message("mqar", {{"n_pairs", int64_t{-1}}}).find("got -1") != std::string::npos);
  CHECK(message("mqar", {{"n_pairs", int64_t{17}}}).find("seq_len of at least 68, got 64") !=
        std::string::npos);
  CHECK(message("mqar", {{"seq_len", int64_t{65}}}).find("even") != std::string::npos);
  CHECK(message("mqar", {{"vocab_size", int64_t{64}}}).find("must exceed seq_len = 64, got 64") !=
        std::string::npos);
  CHECK(message("induction", {{"eval_seq_len", int64_t{2}}}).find("at least 3") !=
        std::string::npos);
  CHECK(message("selective_copy", {{"n_tokens", int64_t{17}}}).find("at least 34, got 32") !=
        std::string::npos);
  CHECK(message("mqar", {{"alpha", std::nan("")}}).find("must be from") != std::string::npos);
  for (const std::string& name : task_names()) {
    CHECK(!task_summary(name).empty());
    for (const TaskOption& option : task_options(name)) CHECK(!option.help.empty());
  }
}
