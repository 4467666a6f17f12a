// What the trainer asks of whoever has the data. Every row is a pure function of (seed, step, row),
// so a resumed run sees what an uninterrupted one would.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/model/model.h"

namespace strata {

// Rows on the host, row-major (batch, seq_len).
struct STRATA_API HostBatch {
  int64_t batch = 0, seq_len = 0;
  std::vector<int32_t> tokens, labels, seq_idx;  // seq_idx may be empty: one document a row

  TokenBatch view();
  int64_t labelled() const;  // positions with a label
};

class STRATA_API DataSource {
 public:
  virtual ~DataSource();
  virtual int64_t vocab_size() const = 0;
  virtual int64_t train_seq_len() const = 0;
  virtual int64_t eval_seq_len() const = 0;
  virtual int64_t eval_rows() const = 0;
  virtual bool documents() const = 0;  // rows hold several documents
  // Rows [first, first + batch) of an optimizer step.
  virtual void train_rows(uint64_t seed, int64_t step, int64_t first, int64_t batch,
                          HostBatch& out) const = 0;
  virtual void eval_rows(uint64_t seed, int64_t first, int64_t batch, HostBatch& out) const = 0;
  // "accuracy" (share of labels predicted) or "bits_per_byte" (mean loss / ln 2).
  virtual std::string metric() const = 0;
};

}  // namespace strata
