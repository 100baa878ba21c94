#include "planner/synthesis/flow.h"

#include <algorithm>
#include <limits>

#include "topology/base/check.h"

namespace trireme {
namespace {

constexpr int kForward = 0, kInput = 1, kWeight = 2;
constexpr double kNever = std::numeric_limits<double>::infinity();
constexpr double kRounding = 1e-9;

// What an op adds to its rank's memory or, below 0, frees.
double held_by(int kind, const Costs& costs, int stage) {
  const StageMemory memory = memory_of(costs, static_cast<size_t>(stage));
  if (kind == kForward) return memory.activation;
  return kind == kInput ? memory.kept_after_input - memory.activation : -memory.kept_after_input;
}

}  // namespace

StageMemory memory_of(const Costs& costs, size_t stage) {
  if (costs.memory.empty()) return {};
  return costs.memory.size() == 1 ? costs.memory.front() : costs.memory[stage];
}

Flow make_flow(const std::vector<StagePlace>& stages, int pipeline, int micro_batches,
               const Costs& costs, const std::vector<double>& limit) {
  const int count = static_cast<int>(stages.size());
  TRIREME_CHECK(static_cast<int>(limit.size()) == pipeline && micro_batches >= 1);
  Flow flow;
  flow.micro_batches = micro_batches;
  flow.stages = stages;
  flow.types.resize(3 * stages.size());
  flow.users.resize(flow.types.size());
  flow.of_rank.resize(static_cast<size_t>(pipeline));
  const auto rank_of = [&](int stage) { return stages[static_cast<size_t>(stage)].rank; };
  const auto feed = [&](int from, int to) {
    const LinkCost link = costs.of_link(rank_of(from % count), rank_of(to % count));
    flow.types[static_cast<size_t>(to)].inputs.push_back({from, link.hop + link.transfer});
    flow.users[static_cast<size_t>(from)].push_back(to);
  };
  const auto type = [&](int kind, int stage) { return kind * count + stage; };
  for (int kind : {kForward, kInput, kWeight}) {
    for (int at = 0; at < count; ++at) {
      const int stage = kind == kForward ? at : count - 1 - at;
      const StageCost& cost = costs.of_stage(stage);
      Flow::Type& made = flow.types[static_cast<size_t>(type(kind, stage))];
      made.rank = rank_of(stage);
      made.time = kind == kForward ? cost.forward : kind == kInput ? cost.input : cost.weight;
      made.holds = held_by(kind, costs, stage);
      flow.order.push_back(type(kind, stage));
      flow.of_rank[static_cast<size_t>(made.rank)].push_back(type(kind, stage));
      if (kind == kForward && stage > 0) feed(type(kForward, stage - 1), type(kind, stage));
      if (kind == kInput) {
        feed(stage + 1 == count ? type(kForward, stage) : type(kInput, stage + 1),
             type(kind, stage));
      }
      if (kind == kWeight) feed(type(kInput, stage), type(kind, stage));
    }
  }
  for (size_t rank = 0; rank < flow.of_rank.size(); ++rank) {
    double all = 0;
    for (const int id : flow.of_rank[rank]) {
      all += std::max(0.0, flow.types[static_cast<size_t>(id)].holds) * micro_batches;
    }
    flow.limit.push_back(std::min(limit[rank], all) * (1 + kRounding));
  }
  return flow;
}

Flow Flow::reversed() const {
  Flow back = *this;
  for (size_t type = 0; type < types.size(); ++type) {
    back.types[type].holds = -types[type].holds;
    back.types[type].inputs.clear();
    back.users[type].clear();
  }
  for (size_t type = 0; type < types.size(); ++type) {
    for (const Input& input : types[type].inputs) {
      back.types[static_cast<size_t>(input.type)].inputs.push_back(
          {static_cast<int>(type), input.lag});
      back.users[type].push_back(input.type);
    }
  }
  std::reverse(back.order.begin(), back.order.end());
  return back;
}

Programs reversed(Programs programs) {
  for (auto& program : programs) std::reverse(program.begin(), program.end());
  return programs;
}

Programs programs_of(const Flow& flow, const Schedule& schedule) {
  const int count = static_cast<int>(flow.stages.size());
  Programs programs(schedule.ranks.size());
  for (size_t rank = 0; rank < programs.size(); ++rank) {
    for (const Op& op : schedule.ranks[rank]) {
      const auto put = [&](int kind) {
        programs[rank].push_back(static_cast<int16_t>(kind * count + op.stage));
      };
      if (op.kind == OpKind::forward) put(kForward);
      if (op.kind == OpKind::backward || op.kind == OpKind::backward_input) put(kInput);
      if (op.kind == OpKind::backward || op.kind == OpKind::backward_weight) put(kWeight);
    }
  }
  return programs;
}

Schedule schedule_of(const Flow& flow, const Programs& programs) {
  const int count = static_cast<int>(flow.stages.size());
  Schedule schedule;
  schedule.micro_batches = flow.micro_batches;
  schedule.stages = flow.stages;
  std::vector<int> done(flow.type_count(), 0);
  for (const auto& program : programs) {
    std::vector<Op>& row = schedule.ranks.emplace_back();
    for (const int16_t type : program) {
      const int kind = type / count, stage = type % count;
      const int micro_batch = done[static_cast<size_t>(type)]++;
      const Op input{OpKind::backward_input, false, stage, micro_batch};
      if (stage == 0 && kind == kWeight && !row.empty() && row.back() == input) {
        row.back().kind = OpKind::backward;
        continue;
      }
      const OpKind kinds[] = {OpKind::forward, OpKind::backward_input, OpKind::backward_weight};
      row.push_back({kinds[kind], false, stage, micro_batch});
    }
  }
  return schedule;
}

bool within_limit(const Flow& flow, const std::vector<int16_t>& program, double limit) {
  double held = 0;
  for (const int16_t type : program) {
    held += flow.types[static_cast<size_t>(type)].holds;
    if (held > limit) return false;
  }
  return true;
}

FlowClock::FlowClock(const Flow& flow)
    : flow_(flow),
      starts_(flow.op_count(), 0),
      done_(flow.type_count(), 0),
      next_(flow.of_rank.size(), 0),
      free_(flow.of_rank.size(), 0) {}

double FlowClock::run(const Programs& programs, double most) {
  std::fill(done_.begin(), done_.end(), 0);
  std::fill(next_.begin(), next_.end(), 0);
  std::fill(free_.begin(), free_.end(), 0.0);
  // Forwards go up the ranks and gradients come down, so the ranks are swept both ways in turn.
  const size_t ranks = programs.size();
  const auto m = static_cast<size_t>(flow_.micro_batches);
  double makespan = 0;
  size_t left = flow_.op_count();
  for (bool up = true, moved = true; left > 0; up = !up) {
    if (up) {
      if (!moved) return kNever;
      moved = false;
    }
    for (size_t at = 0; at < ranks; ++at) {
      const size_t rank = up ? at : ranks - 1 - at;
      const std::vector<int16_t>& program = programs[rank];
      size_t next = next_[rank];
      double now = free_[rank];
      for (; next < program.size(); ++next) {
        const auto id = static_cast<size_t>(program[next]);
        const Flow::Type& type = flow_.types[id];
        const auto k = static_cast<size_t>(done_[id]);
        double start = now;
        bool ready = true;
        for (const Flow::Input& input : type.inputs) {
          const auto from = static_cast<size_t>(input.type);
          if (static_cast<size_t>(done_[from]) <= k) {
            ready = false;
            break;
          }
          start = std::max(start, starts_[from * m + k] + flow_.types[from].time + input.lag);
        }
        if (!ready) break;
        starts_[id * m + k] = start;
        now = start + type.time;
        ++done_[id];
      }
      if (now > most) return kNever;
      moved = moved || next != next_[rank];
      left -= next - next_[rank];
      next_[rank] = next;
      free_[rank] = now;
      makespan = std::max(makespan, now);
    }
  }
  return makespan;
}

}  // namespace trireme
