// One layer object serves several calls: gradients add up, order does not matter, what is frozen
// stays so.
#include <algorithm>

#include "plugins/kit/checks.h"

namespace strata::kit {
namespace {

constexpr double kTolerance = 1e-11;

// The largest difference over all parameters, each against its own size.
double apart(const std::vector<Values>& a, const std::vector<Values>& b) {
  double worst = 0;
  for (size_t i = 0; i < b.size(); ++i) worst = std::max(worst, difference(a[i], b[i]));
  return worst;
}

std::vector<Values> sum(std::vector<Values> a, const std::vector<Values>& b) {
  for (size_t i = 0; i < a.size(); ++i)
    for (size_t k = 0; k < a[i].size(); ++k) a[i][k] += b[i][k];
  return a;
}

CheckRow adds_up(Bed& bed, const Batch& in, const Values& dy) {
  const Gradients once = bed.train(in, dy);
  const auto site = bed.forward(in, true);  // without zeroing
  bed.backward(*site, dy);
  return measured("gradients add up", apart(bed.grads(), sum(once.params, once.params)), kTolerance,
                  "two backwards give twice the gradient");
}

CheckRow frozen(Bed& bed, const Batch& in, const Values& dy) {
  const Gradients expected = bed.train(in, dy);
  double worst = 0;
  auto& params = bed.layer().params();
  std::vector<Tensor> homes;
  for (const ParamSlot& p : params) homes.push_back(p.grad);
  for (size_t parity = 0; parity < 3; ++parity) {  // every second one, the others, all
    for (size_t i = 0; i < params.size(); ++i)
      params[i].grad = parity == 2 || i % 2 == parity ? Tensor{} : homes[i];
    const Gradients g = bed.train(in, dy);
    worst = std::max(worst, difference(g.dx, expected.dx));
    for (size_t i = 0; i < params.size(); ++i)
      if (params[i].grad) worst = std::max(worst, difference(g.params[i], expected.params[i]));
  }
  for (size_t i = 0; i < params.size(); ++i) params[i].grad = homes[i];
  bed.zero_grads();
  const auto site = bed.forward(in, true, true);  // a constant input
  bed.backward(*site, dy);
  worst = std::max(worst, apart(bed.grads(), expected.params));
  return measured("frozen", worst, kTolerance, "frozen parameters, constant input");
}

CheckRow called_twice(Bed& bed, const Batch& a, const Batch& b, const Values& da,
                      const Values& db) {
  const Gradients ga = bed.train(a, da), gb = bed.train(b, db);
  double worst = 0;
  for (const bool a_first : {true, false}) {
    bed.zero_grads();
    const auto site_a = bed.forward(a, true), site_b = bed.forward(b, true);
    Values dxa, dxb;
    if (a_first) dxa = bed.backward(*site_a, da);
    dxb = bed.backward(*site_b, db);
    if (!a_first) dxa = bed.backward(*site_a, da);
    worst = std::max({worst, difference(dxa, ga.dx), difference(dxb, gb.dx),
                      apart(bed.grads(), sum(ga.params, gb.params))});
  }
  return measured("called twice", worst, kTolerance, "two forwards before either backward");
}

}  // namespace

Rows check_uses(const LayerChoice& c) {
  Bed bed(c, DType::f64);
  const Batch a = bed.random_batch(2, 9, 5), b = bed.random_batch(1, 14, 6);
  const Values da = bed.random_values(int64_t(a.x.size()), 7);
  const Values db = bed.random_values(int64_t(b.x.size()), 8);
  Rows rows = {adds_up(bed, a, da), frozen(bed, a, da), called_twice(bed, a, b, da, db)};
  if (bed.own_backward()) {
    const Gradients own = bed.train(a, da), replayed = bed.train(a, da, true);
    rows.push_back(
        measured("own backward",
                 std::max(difference(own.dx, replayed.dx), apart(own.params, replayed.params)),
                 1e-9, "against the replay of the tape"));
  }
  return rows;
}

}  // namespace strata::kit
