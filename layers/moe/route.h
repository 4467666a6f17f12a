// The operations of a mixture of experts around its grouped products: choice of experts, sorting of
// tokens by expert, weighted sum of what the experts return, load-balancing loss.
#pragma once

#include <vector>

#include "core/contract/context.h"

namespace strata::moe {

constexpr int kMaxExperts = 1024;

enum class Router : uint8_t { softmax, sigmoid, topk_softmax };

struct RouteOptions {
  Router router = Router::softmax;  // topk_softmax: choice by logits, softmax over the chosen
  int64_t top_k = 2;
  bool normalize = false;  // divide the chosen scores by their sum
  double scale = 1;        // multiplies the weights
  // Group-limited choice (DeepSeek-V3): of n_groups groups of experts the top_groups whose two best
  // scores have the largest sums stay; the others cannot be chosen.
  int64_t n_groups = 1, top_groups = 1;
};

struct RouteArgs {
  Tensor logits;   // (tokens, n_experts)
  Tensor bias;     // (n_experts,) or absent: added for the choice only
  Tensor scores;   // (tokens, n_experts)
  Tensor weights;  // (tokens, top_k)
  Tensor index;    // (tokens, top_k) i32, best first; ties go to the lower index
  RouteOptions options;
};

struct RouteBackwardArgs {
  Tensor scores, weights, index, dweights;
  GradTarget dlogits;
  RouteOptions options;
};

struct SortArgs {
  Tensor index;    // (tokens, top_k) i32
  Tensor offsets;  // (n_experts + 1,) i32: where each expert's rows begin
  Tensor token;    // (tokens * top_k,) i32: the token of each sorted row
  Tensor row;      // (tokens, top_k) i32: the sorted row of each choice
};

struct CombineArgs {
  Tensor x;        // (tokens * top_k, d), sorted by expert
  Tensor weights;  // (tokens, top_k), no less than float32
  Tensor row;      // (tokens, top_k) i32
  Tensor y;        // (tokens, d)
};

struct CombineBackwardArgs {
  Tensor x, weights, row, dy;
  GradTarget dx, dweights;
};

struct BalanceArgs {
  Tensor logits;   // (tokens, n_experts)
  Tensor index;    // (tokens, top_k) i32
  Tensor chosen;   // (n_experts,): mean over tokens of how often each was chosen
  Tensor partial;  // (row blocks, n_experts): sums of probabilities
  Tensor loss;     // (1,)
};

struct BalanceBackwardArgs {
  Tensor logits, chosen, dloss;
  GradTarget dlogits;
};

struct EvenOutArgs {
  Tensor bias;            // (n_experts,)
  const double* offsets;  // (n_experts + 1,) on the host: differences are loads
  double rate;
};

struct Routes {
  Tensor weights, index;
};

// logits: (tokens, n_experts) -> weights and experts of each token, (tokens, top_k).
Routes route(Context& cx, Tensor logits, Tensor bias, const RouteOptions& options);

struct Sorted {
  Tensor offsets, token, row;
};
// Rows by expert, and by token within an expert. No gradient.
Sorted sort_by_expert(Context& cx, Tensor index, int64_t n_experts);

// y_t = sum_j weights_tj x_row(t, j).
Tensor combine(Context& cx, Tensor x, Tensor weights, Tensor row);

// n_experts * sum_e chosen_e * mean probability_e (Switch Transformers, arXiv 2101.03961), with the
// probabilities softmax(logits) -> (1,).
Tensor balance_loss(Context& cx, Tensor logits, Tensor index);

// bias_e += rate * sign(mean load - load_e); the load of e is offsets[e + 1] - offsets[e].
void even_out(Context& cx, Tensor bias, const std::vector<double>& offsets, double rate);

}  // namespace strata::moe
