#include "core/train/schedule.h"

#include <doctest/doctest.h>

#include <cmath>

using namespace strata;

static TrainConfig train(const char* schedule) {
  TrainConfig t;
  t.steps = 100;
  t.lr = 1;
  t.min_lr = 0.1;
  t.warmup = 10;
  t.schedule = schedule;
  return t;
}

TEST_CASE("warm-up is linear and its first step moves") {
  for (const char* schedule : {"constant", "linear", "cosine", "wsd"}) {
    CHECK(learning_rate(train(schedule), 1) == doctest::Approx(0.1));
    CHECK(learning_rate(train(schedule), 10) == doctest::Approx(1));
  }
  TrainConfig share = train("constant");
  share.warmup = 0.05;
  CHECK(warmup_steps(share) == 5);
  share.warmup = 0;
  CHECK(learning_rate(share, 1) == 1);
}

TEST_CASE("schedules pass through their known points") {
  CHECK(learning_rate(train("constant"), 77) == 1);
  CHECK(learning_rate(train("linear"), 55) == doctest::Approx(0.55));
  CHECK(learning_rate(train("linear"), 100) == doctest::Approx(0.1));
  CHECK(learning_rate(train("cosine"), 55) == doctest::Approx(0.55));
  CHECK(learning_rate(train("cosine"), 32) ==
        doctest::Approx(0.1 + 0.9 * 0.5 * (1 + std::cos(M_PI * 22 / 90))));
  CHECK(learning_rate(train("cosine"), 100) == doctest::Approx(0.1));
}

TEST_CASE("wsd is flat, then decays over its last share") {
  TrainConfig t = train("wsd");
  t.min_lr = 0;
  CHECK(learning_rate(t, 80) == 1);
  CHECK(learning_rate(t, 90) == doctest::Approx(0.5));
  CHECK(learning_rate(t, 100) == doctest::Approx(0));
  t.decay_shape = "minus_sqrt";
  CHECK(learning_rate(t, 85) == doctest::Approx(0.5));
  t.decay_shape = "exponential";
  CHECK(learning_rate(t, 90) == doctest::Approx(2 * std::sqrt(0.5) - 1));
  t.decay_shape = "cosine";
  CHECK(learning_rate(t, 90) == doctest::Approx(0.5));
}

TEST_CASE("unknown schedules are refused by name") {
  CHECK_THROWS_WITH_AS(learning_rate(train("cosin"), 50), doctest::Contains("cosin"), Error);
}
