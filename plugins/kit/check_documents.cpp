// Documents packed into one row behave like the same documents alone, forward and backward.
#include <algorithm>

#include "plugins/kit/checks.h"

namespace strata::kit {
namespace {

constexpr double kTolerance = 1e-9;
constexpr int64_t kRow = 40;
const std::vector<std::vector<int64_t>> kDocuments = {{5, 1, 9, 2, 23}, {17, 16, 7}, {40}};

struct Piece {
  int64_t row, begin, end;
};

std::vector<Piece> pieces() {
  std::vector<Piece> all;
  for (size_t r = 0; r < kDocuments.size(); ++r) {
    int64_t begin = 0;
    for (const int64_t length : kDocuments[r]) {
      all.push_back({int64_t(r), begin, begin + length});
      begin += length;
    }
  }
  return all;
}

Batch piece_of(const Batch& in, const Piece& p) { return slice(row_of(in, p.row), p.begin, p.end); }

}  // namespace

Rows check_documents(const LayerChoice& c) {
  Bed bed(c, DType::f64);
  Batch in = bed.random_batch(int64_t(kDocuments.size()), kRow);
  Batch dy = in;
  dy.x = bed.random_values(int64_t(in.x.size()), 6);
  in.seq_idx.resize(size_t(in.batch * in.seq_len));
  int32_t id = 3;  // any numbers, as long as they change where a document begins
  for (const Piece& p : pieces()) {
    for (int64_t t = p.begin; t < p.end; ++t) in.seq_idx[size_t(p.row * kRow + t)] = id;
    ++id;
  }
  const Gradients packed = bed.train(in, dy.x);
  double y = 0, dx = 0, dparams = 0;
  std::vector<Values> sum;
  Batch y_all{in.batch, kRow, packed.y, {}}, dx_all{in.batch, kRow, packed.dx, {}};
  for (const Piece& p : pieces()) {
    const Gradients alone = bed.train(piece_of(in, p), piece_of(dy, p).x);
    y = std::max(y, difference(piece_of(y_all, p).x, alone.y));
    dx = std::max(dx, difference(piece_of(dx_all, p).x, alone.dx));
    if (sum.empty()) {
      sum = alone.params;
      continue;
    }
    for (size_t i = 0; i < sum.size(); ++i)
      for (size_t k = 0; k < sum[i].size(); ++k) sum[i][k] += alone.params[i][k];
  }
  for (size_t i = 0; i < sum.size(); ++i)
    dparams = std::max(dparams, difference(packed.params[i], sum[i]));
  return {measured("documents forward", y, kTolerance),
          measured("documents backward x", dx, kTolerance),
          measured("documents backward params", dparams, kTolerance)};
}

}  // namespace strata::kit
