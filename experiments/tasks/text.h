// Byte-level language modelling on files. Every file is a document: no label crosses its end, and
// seq_idx counts documents within an example. A token is a byte, so vocab_size is 256.
//
// Training examples start at uniformly drawn bytes of the training files laid end to end (and run
// on from the first file behind the last). Evaluation examples are windows of the validation files
// that do not overlap, spread evenly when there are more than eval_size of them; the place of the
// last window behind the data has no labels.
//
// The split is by file: files are ordered by a hash of the path as it was matched, and the first
// `validation` share of them (at least one) validates. A single file is cut: its tail validates.
#pragma once

#include "experiments/tasks/task.h"

namespace strata {

class Text final : public Task {
 public:
  // Reads all files. Throws Error for a missing or unreadable file, a glob without match, and data
  // too small to hold one label on either side.
  explicit Text(const TaskOptions& options);
  static const std::vector<TaskOption>& table();

  std::string name() const override { return "text"; }
  std::string metric() const override { return "bits_per_byte"; }
  int64_t vocab_size() const override { return 256; }
  int64_t seq_len(Split) const override { return seq_len_; }
  int64_t eval_size() const override { return eval_size_; }
  double chance() const override { return 1.0 / 256; }
  double in_context_floor() const override { return chance(); }
  void fill_example(Split split, uint64_t seed, int64_t step, int64_t index,
                    Example out) const override;

  const std::vector<std::string>& files(Split split) const { return part(split).files; }
  int64_t bytes(Split split) const { return int64_t(part(split).bytes.size()); }

 private:
  // Documents laid end to end; document i is bytes [starts[i], starts[i + 1]).
  struct Part {
    std::vector<std::string> files;
    std::string bytes;
    std::vector<size_t> starts{0};
    void add(const std::string& file, std::string_view document);
  };
  const Part& part(Split split) const { return split == Split::train ? train_ : eval_; }
  void copy(const Part& part, size_t start, bool wrap, Example out) const;

  int64_t seq_len_, eval_size_ = 0, eval_windows_ = 0;
  Part train_, eval_;
};

}  // namespace strata
