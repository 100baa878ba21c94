#pragma once

#include <array>
#include <utility>
#include <vector>

#include "planner/plan/schedule.h"

namespace trireme {

// Writes the program of one rank that holds two chunks in a V: the generator says which kind of op
// comes next on which chunk, and it is done for that chunk's next micro-batch.
class VProgram {
 public:
  VProgram(int rank, int pipeline) : stages_{rank, 2 * pipeline - 1 - rank} {}

  void forward(int chunk) { add(OpKind::forward, chunk, forwards_); }
  void backward(int chunk) {
    add(OpKind::backward, chunk, backwards_);
    ++weights_[static_cast<size_t>(chunk)];
  }
  void backward_input(int chunk) { add(OpKind::backward_input, chunk, backwards_); }
  void backward_weight(int chunk) { add(OpKind::backward_weight, chunk, weights_); }
  // A forward and a full backward that run as one.
  void forward_with_backward(int forward_chunk, int backward_chunk) {
    forward(forward_chunk);
    ops_.back().overlaps_next = true;
    backward(backward_chunk);
  }

  int forwards(int chunk) const { return forwards_[static_cast<size_t>(chunk)]; }
  // Input gradients whose weight gradients are still to do.
  int waiting(int chunk) const {
    return backwards_[static_cast<size_t>(chunk)] - weights_[static_cast<size_t>(chunk)];
  }
  std::vector<Op> take() { return std::move(ops_); }

 private:
  using Counts = std::array<int, 2>;  // by chunk

  void add(OpKind kind, int chunk, Counts& done) {
    const auto c = static_cast<size_t>(chunk);
    ops_.push_back({kind, false, stages_[c], done[c]++});
  }

  std::array<int, 2> stages_;
  Counts forwards_{}, backwards_{}, weights_{};
  std::vector<Op> ops_;
};

}  // namespace trireme
