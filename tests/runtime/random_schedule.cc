#include <algorithm>
#include <random>

#include "tests/runtime/support.h"

namespace trireme::test {
namespace {

// Plays the schedule while it makes it: an op may be next on its rank once its inputs are there.
class Player {
 public:
  Player(uint64_t seed, int pipeline, int chunks, int micro_batches)
      : random_(seed), stages_(pipeline * chunks) {
    schedule_.name = "random";
    schedule_.micro_batches = micro_batches;
    for (const auto& place : loop_placement(pipeline, chunks)) schedule_.stages.push_back(place);
    std::shuffle(schedule_.stages.begin(), schedule_.stages.end(), random_);
    schedule_.ranks.resize(pipeline);
    done_.assign(static_cast<size_t>(stages_) * static_cast<size_t>(micro_batches), Done{});
    for (auto& done : done_) done.splits = chance(2);
  }

  Schedule play() {
    while (true) {
      std::vector<Op> ready;
      for (int s = 0; s < stages_; ++s) {
        for (int m = 0; m < schedule_.micro_batches; ++m) {
          if (const auto op = next_op(s, m)) ready.push_back(*op);
        }
      }
      if (ready.empty()) return std::move(schedule_);
      std::shuffle(ready.begin(), ready.end(), random_);
      const auto partner = std::find_if(ready.begin() + 1, ready.end(), [&](const Op& op) {
        return rank_of(op) == rank_of(ready[0]) && goes_forward(op) != goes_forward(ready[0]) &&
               op.kind != OpKind::backward_weight && ready[0].kind != OpKind::backward_weight;
      });
      const bool pair = partner != ready.end() && chance(3);
      ready[0].overlaps_next = pair;
      emit(ready[0]);
      if (pair) emit(*partner);
    }
  }

 private:
  struct Done {
    bool splits = false;
    bool forward = false;
    bool input_gradient = false;
    bool weight_gradient = false;
  };

  bool chance(int out_of) { return std::uniform_int_distribution<int>(1, out_of)(random_) == 1; }
  Done& done(int stage, int m) { return done_[stage * schedule_.micro_batches + m]; }
  int rank_of(const Op& op) const { return schedule_.stages[op.stage].rank; }
  static bool goes_forward(const Op& op) { return op.kind == OpKind::forward; }

  std::optional<Op> next_op(int stage, int m) {
    const Done& here = done(stage, m);
    if (!here.forward) {
      if (stage > 0 && !done(stage - 1, m).forward) return std::nullopt;
      return Op{OpKind::forward, false, stage, m};
    }
    if (!here.input_gradient) {
      if (stage + 1 < stages_ && !done(stage + 1, m).input_gradient) return std::nullopt;
      return Op{here.splits ? OpKind::backward_input : OpKind::backward, false, stage, m};
    }
    if (here.weight_gradient) return std::nullopt;
    return Op{OpKind::backward_weight, false, stage, m};
  }

  void emit(const Op& op) {
    schedule_.ranks[rank_of(op)].push_back(op);
    Done& here = done(op.stage, op.micro_batch);
    here.forward = true;
    here.input_gradient = here.input_gradient || !goes_forward(op);
    here.weight_gradient = op.kind == OpKind::backward || op.kind == OpKind::backward_weight;
  }

  std::mt19937_64 random_;
  int stages_;
  Schedule schedule_;
  std::vector<Done> done_;
};

}  // namespace

Schedule random_schedule(uint64_t seed, int pipeline, int chunks, int micro_batches) {
  return parse_schedule_csv(to_csv(Player(seed, pipeline, chunks, micro_batches).play()), "random");
}

}  // namespace trireme::test
