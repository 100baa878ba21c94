#include "planner/simulator.h"

#include <algorithm>

#include "planner/execution.h"
#include "topology/base/check.h"

namespace trireme {
namespace {

// The clock of every rank and of every output while an Execution walks the schedule.
class Timing {
 public:
  Timing(const Schedule& schedule, const Costs& costs)
      : schedule_(schedule),
        costs_(costs),
        rank_free_(schedule.ranks.size(), 0),
        forward_end_(schedule.stages.size() * static_cast<size_t>(schedule.micro_batches), 0),
        input_end_(forward_end_.size(), 0) {}

  // Advances over one op, or over the overlapped pair that starts here, and returns when it runs.
  OpTimes advance(size_t rank, size_t position) {
    const std::vector<Op>& program = schedule_.ranks[rank];
    const Op& op = program[position];
    double start = std::max(rank_free_[rank], arrival(op));
    double duration = cost(rank, position);
    if (op.overlaps_next) {
      start = std::max(start, arrival(program[position + 1]));
      duration += cost(rank, position + 1);
    }
    const double end = start + duration;
    note(op, end);
    if (op.overlaps_next) note(program[position + 1], end);
    rank_free_[rank] = end;
    return {start, end};
  }

  double cost(size_t rank, size_t position) const {
    if (costs_.op_time) return costs_.op_time(static_cast<int>(rank), position);
    const Op& op = schedule_.ranks[rank][position];
    return costs_.of_stage(op.stage).of(op.kind);
  }

  double makespan() const { return *std::max_element(rank_free_.begin(), rank_free_.end()); }

 private:
  size_t slot(int stage, int micro_batch) const {
    return static_cast<size_t>(stage) * static_cast<size_t>(schedule_.micro_batches) +
           static_cast<size_t>(micro_batch);
  }

  double hop(int from, int to) const {
    const auto rank = [&](int stage) { return schedule_.stages[static_cast<size_t>(stage)].rank; };
    return rank(from) == rank(to) ? 0 : costs_.hop;
  }

  // When the input from the neighbouring stage is there; what this rank made itself is there once
  // it is free.
  double arrival(const Op& op) const {
    if (op.kind == OpKind::forward) {
      if (op.stage == 0) return 0;
      return forward_end_[slot(op.stage - 1, op.micro_batch)] + hop(op.stage - 1, op.stage);
    }
    if (op.kind == OpKind::backward_weight ||
        op.stage + 1 == static_cast<int>(schedule_.stages.size())) {
      return 0;
    }
    return input_end_[slot(op.stage + 1, op.micro_batch)] + hop(op.stage + 1, op.stage);
  }

  void note(const Op& op, double end) {
    if (op.kind == OpKind::backward_weight) return;
    (op.kind == OpKind::forward ? forward_end_ : input_end_)[slot(op.stage, op.micro_batch)] = end;
  }

  const Schedule& schedule_;
  const Costs& costs_;
  std::vector<double> rank_free_;
  std::vector<double> forward_end_, input_end_;  // by stage and micro-batch
};

void check_arguments(const Schedule& schedule, const Costs& costs) {
  TRIREME_CHECK(!schedule.ranks.empty());
  TRIREME_CHECK(costs.stages.size() == 1 || costs.stages.size() == schedule.stages.size());
}

// Idle time, span and bubble from the times of all ops.
void summarize_time(const Schedule& schedule, const Timing& timing, Simulation& result) {
  result.makespan = timing.makespan();
  double idle = 0;
  for (size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
    double busy = 0;
    const size_t count = schedule.ranks[rank].size();
    for (size_t i = 0; i < count; ++i) busy += timing.cost(rank, i);
    result.idle.push_back(std::max(0.0, result.makespan - busy));
    idle += result.idle.back();
    if (count == 0) continue;
    const double window = result.ops[rank].back().end - result.ops[rank].front().start;
    result.span = std::max(result.span, window);
  }
  const double total = result.makespan * static_cast<double>(schedule.ranks.size());
  result.bubble_fraction = total > 0 ? idle / total : 0;
}

// Activations held, in program order. In an overlapped pair both ops hold theirs at once: the
// forward's is counted before the backward's is freed.
int peak_activations(const std::vector<Op>& program) {
  const auto change = [](const Op& op) {
    if (op.kind == OpKind::forward) return 1;
    return op.kind == OpKind::backward_input ? 0 : -1;
  };
  int held = 0, peak = 0;
  for (size_t i = 0; i < program.size(); ++i) {
    const int now = change(program[i]);
    if (program[i].overlaps_next) {
      const int next = change(program[++i]);
      peak = std::max(peak, held + std::max(now, 0) + std::max(next, 0));
      held += now + next;
    } else {
      held += now;
      peak = std::max(peak, held);
    }
  }
  return peak;
}

void summarize_ranks(const Schedule& schedule, Simulation& result) {
  const int last_stage = static_cast<int>(schedule.stages.size()) - 1;
  const auto crosses = [&](int from, int to) {
    return from >= 0 && to <= last_stage &&
           schedule.stages[static_cast<size_t>(from)].rank !=
               schedule.stages[static_cast<size_t>(to)].rank;
  };
  result.tail_slack.resize(schedule.ranks.size());
  for (const StagePlace& place : schedule.stages) {
    std::vector<double>& slack = result.tail_slack[static_cast<size_t>(place.rank)];
    slack.resize(std::max(slack.size(), static_cast<size_t>(place.chunk) + 1), 0.0);
  }
  for (size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
    const std::vector<Op>& program = schedule.ranks[rank];
    result.peak_activations.push_back(peak_activations(program));
    for (size_t i = 0; i < program.size(); ++i) {
      const Op& op = program[i];
      if (op.kind == OpKind::forward) result.messages += crosses(op.stage, op.stage + 1) ? 1 : 0;
      if (op.kind == OpKind::backward || op.kind == OpKind::backward_input) {
        result.messages += crosses(op.stage - 1, op.stage) ? 1 : 0;
      }
      if (op.kind == OpKind::backward || op.kind == OpKind::backward_weight) {
        const auto chunk =
            static_cast<size_t>(schedule.stages[static_cast<size_t>(op.stage)].chunk);
        result.tail_slack[rank][chunk] = result.makespan - result.ops[rank][i].end;
      }
    }
  }
}

}  // namespace

double StageCost::of(OpKind kind) const {
  switch (kind) {
    case OpKind::forward:
      return forward;
    case OpKind::backward:
      return input + weight;
    case OpKind::backward_input:
      return input;
    case OpKind::backward_weight:
      return weight;
  }
  return 0;
}

Simulation simulate(const Schedule& schedule, const Costs& costs) {
  check_arguments(schedule, costs);
  Simulation result;
  for (const std::vector<Op>& program : schedule.ranks) result.ops.emplace_back(program.size());
  Timing timing(schedule, costs);
  Execution execution(schedule);
  execution.run([&](size_t rank, size_t position) {
    const OpTimes times = timing.advance(rank, position);
    result.ops[rank][position] = times;
    if (schedule.ranks[rank][position].overlaps_next) result.ops[rank][position + 1] = times;
  });
  TRIREME_CHECK(execution.complete());
  summarize_time(schedule, timing, result);
  summarize_ranks(schedule, result);
  return result;
}

double makespan_of(const Schedule& schedule, const Costs& costs) {
  check_arguments(schedule, costs);
  Timing timing(schedule, costs);
  Execution execution(schedule);
  execution.run([&](size_t rank, size_t position) { timing.advance(rank, position); });
  TRIREME_CHECK(execution.complete());
  return timing.makespan();
}

double makespan_bound(const std::vector<StagePlace>& stages, int pipeline, int micro_batches,
                      const Costs& costs) {
  // What lies before (and, backwards, after) the first stage of each rank.
  std::vector<double> fill_and_drain(static_cast<size_t>(pipeline), -1);
  std::vector<double> work(static_cast<size_t>(pipeline), 0);
  double upstream = 0;
  for (size_t stage = 0; stage < stages.size(); ++stage) {
    const auto rank = static_cast<size_t>(stages[stage].rank);
    if (stage > 0 && stages[stage - 1].rank != stages[stage].rank) upstream += 2 * costs.hop;
    if (fill_and_drain[rank] < 0) fill_and_drain[rank] = upstream;
    const StageCost& cost = costs.of_stage(static_cast<int>(stage));
    upstream += cost.forward + cost.backward();
    work[rank] += micro_batches * (cost.forward + cost.backward());
  }
  double bound = 0;
  for (size_t rank = 0; rank < work.size(); ++rank) {
    bound = std::max(bound, std::max(fill_and_drain[rank], 0.0) + work[rank]);
  }
  return bound;
}

}  // namespace trireme
