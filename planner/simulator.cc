#include "planner/simulator.h"

#include <algorithm>
#include <array>
#include <map>
#include <span>
#include <utility>

#include "planner/execution.h"
#include "topology/base/check.h"

namespace trireme {
namespace {

// A directed link between two ranks. It has one sender, whose ops end in program order, so taking
// messages as the sender's program makes them serves them in the order of time: no event queue is
// needed to let them queue.
struct Link {
  LinkCost cost;
  double free = 0;  // from when on it can take the next message
};

// The clock of every rank and link while an Execution walks the schedule.
class Clock {
 public:
  Clock(const Schedule& schedule, const Costs& costs)
      : schedule_(schedule),
        costs_(costs),
        measured_(costs.op_time != nullptr),
        rank_free_(schedule.ranks.size(), 0),
        last_gradient_(schedule.stages.size(), 0) {
    for (size_t stage = 0; stage < schedule.stages.size(); ++stage) {
      const StageCost& cost = costs.of_stage(static_cast<int>(stage));
      std::array<double, 4>& durations = durations_.emplace_back();
      for (size_t kind = 0; kind < durations.size(); ++kind) {
        durations[kind] = cost.of(static_cast<OpKind>(kind));
      }
    }
    lay_links();
  }

  double run(size_t rank, size_t position, std::span<const Op> ops, double ready) {
    const double end = std::max(rank_free_[rank], ready) + duration(rank, position, ops);
    rank_free_[rank] = end;
    for (const Op& op : ops) note_gradient(op, end);
    return end;
  }

  double deliver(size_t edge, size_t /*output*/, double end) {
    const int number = link_of_edge_[edge];
    if (number < 0) return end;
    Link& link = links_[static_cast<size_t>(number)];
    link.free = std::max(link.free, end) + link.cost.transfer;
    return link.free + link.cost.hop;
  }

  // Of the op or overlapped pair that starts at this position.
  double duration(size_t rank, size_t position, std::span<const Op> ops) const {
    const double first = duration_of(rank, position, ops.front());
    if (ops.size() == 1) return first;
    const double second = duration_of(rank, position + 1, ops.back());
    return first + second - costs_.overlap * std::min(first, second);
  }

  double makespan() const { return *std::max_element(rank_free_.begin(), rank_free_.end()); }
  double rank_free(size_t rank) const { return rank_free_[rank]; }
  Timing timing() const { return {makespan(), last_gradient_}; }

 private:
  void note_gradient(const Op& op, double end) {
    if (op.kind == OpKind::forward || op.kind == OpKind::backward_input) return;
    last_gradient_[static_cast<size_t>(op.stage)] = end;
  }

  double duration_of(size_t rank, size_t position, const Op& op) const {
    if (measured_) return costs_.op_time(static_cast<int>(rank), position);
    return durations_[static_cast<size_t>(op.stage)][static_cast<size_t>(op.kind)];
  }

  void lay_links() {
    std::map<std::pair<int, int>, int> numbers;
    const auto lay = [&](int from, int to) {
      const auto [at, is_new] = numbers.emplace(std::pair(from, to), links_.size());
      if (is_new) links_.push_back({costs_.of_link(from, to)});
      return at->second;
    };
    link_of_edge_.assign(2 * schedule_.stages.size(), -1);
    for (size_t stage = 1; stage < schedule_.stages.size(); ++stage) {
      const int before = schedule_.stages[stage - 1].rank, here = schedule_.stages[stage].rank;
      if (before == here) continue;
      link_of_edge_[2 * (stage - 1)] = lay(before, here);
      link_of_edge_[2 * stage + 1] = lay(here, before);
    }
  }

  const Schedule& schedule_;
  const Costs& costs_;
  bool measured_;
  std::vector<double> rank_free_;
  std::vector<double> last_gradient_;             // by stage
  std::vector<std::array<double, 4>> durations_;  // by stage and kind
  std::vector<Link> links_;
  std::vector<int> link_of_edge_;  // by edge of the execution; -1 within a rank
};

// Calls visit(position, ops) for every op or overlapped pair of a rank.
template <class Visit>
void for_each_step(const std::vector<Op>& program, Visit visit) {
  for (size_t i = 0; i < program.size();) {
    const std::span<const Op> ops = ops_at(program, i);
    visit(i, ops);
    i += ops.size();
  }
}

// A clock that stops once some rank has waited so long that it cannot be through in time.
class LimitedClock {
 public:
  LimitedClock(const Schedule& schedule, const Costs& costs, double most)
      : clock_(schedule, costs), slack_(schedule.ranks.size(), most * kRounding) {
    if (costs.op_time || costs.overlap > 0) {
      take_ops(schedule);
    } else {
      take_stages(schedule, costs);
    }
    stopped_ = *std::min_element(slack_.begin(), slack_.end()) < 0;
  }

  double run(size_t rank, size_t position, std::span<const Op> ops, double ready) {
    const double wait = ready - clock_.rank_free(rank);
    if (wait > 0) {
      slack_[rank] -= wait;
      if (slack_[rank] < 0) stopped_ = true;
    }
    return clock_.run(rank, position, ops, ready);
  }
  double deliver(size_t edge, size_t output, double end) {
    return clock_.deliver(edge, output, end);
  }

  bool stopped() const { return stopped_; }
  Timing timing() const { return clock_.timing(); }

 private:
  void take_ops(const Schedule& schedule) {
    for (size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
      for_each_step(schedule.ranks[rank], [&](size_t i, std::span<const Op> ops) {
        slack_[rank] -= clock_.duration(rank, i, ops);
      });
    }
  }

  // Every stage runs all its ops once a micro-batch.
  void take_stages(const Schedule& schedule, const Costs& costs) {
    for (size_t stage = 0; stage < schedule.stages.size(); ++stage) {
      const auto rank = static_cast<size_t>(schedule.stages[stage].rank);
      const StageCost& cost = costs.of_stage(static_cast<int>(stage));
      const bool trains = schedule.ranks[rank].back().kind != OpKind::forward;
      slack_[rank] -= schedule.micro_batches * (cost.forward + (trains ? cost.backward() : 0));
    }
  }

  static constexpr double kRounding = 1 + 1e-9;

  Clock clock_;
  std::vector<double> slack_;  // by rank: for how long it may still wait
  bool stopped_ = false;
};

// A clock that keeps what it sees: when every op ran, and when every output was made.
class RecordingClock {
 public:
  RecordingClock(const Schedule& schedule, const Costs& costs)
      : clock_(schedule, costs), made_(Execution::outputs_of(schedule), 0) {
    for (const std::vector<Op>& program : schedule.ranks) ops_.emplace_back(program.size());
  }

  double run(size_t rank, size_t position, std::span<const Op> ops, double ready) {
    const double start = std::max(clock_.rank_free(rank), ready);
    const double end = clock_.run(rank, position, ops, ready);
    std::fill_n(&ops_[rank][position], ops.size(), OpTimes{start, end});
    return end;
  }

  double deliver(size_t edge, size_t output, double end) {
    made_[output] = end;
    return clock_.deliver(edge, output, end);
  }

  const Clock& clock() const { return clock_; }
  const std::vector<double>& made() const { return made_; }
  std::vector<std::vector<OpTimes>> take_ops() { return std::move(ops_); }

 private:
  Clock clock_;
  std::vector<std::vector<OpTimes>> ops_;
  std::vector<double> made_;  // by output of the execution
};

void check_arguments(const Schedule& schedule, const Costs& costs) {
  const auto one_or_each = [&](size_t count) {
    return count == 1 || count == schedule.stages.size();
  };
  TRIREME_CHECK(!schedule.ranks.empty());
  TRIREME_CHECK(one_or_each(costs.stages.size()));
  TRIREME_CHECK(costs.memory.empty() || one_or_each(costs.memory.size()));
  TRIREME_CHECK(costs.overlap >= 0 && costs.overlap <= 1);
}

void summarize_time(const Schedule& schedule, const Clock& clock, Simulation& result) {
  static_cast<Timing&>(result) = clock.timing();
  double idle = 0;
  for (size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
    const std::vector<Op>& program = schedule.ranks[rank];
    double busy = 0;
    for_each_step(program,
                  [&](size_t i, std::span<const Op> ops) { busy += clock.duration(rank, i, ops); });
    result.idle.push_back(std::max(0.0, result.makespan - busy));
    idle += result.idle.back();
    if (program.empty()) continue;
    const double window = result.ops[rank].back().end - result.ops[rank].front().start;
    result.span = std::max(result.span, window);
  }
  const double total = result.makespan * static_cast<double>(schedule.ranks.size());
  result.bubble_fraction = total > 0 ? idle / total : 0;
}

// Needs the idle times.
void summarize_causes(const Schedule& schedule, const Execution& execution,
                      const std::vector<double>& made, Simulation& result) {
  const double least_idle = *std::min_element(result.idle.begin(), result.idle.end());
  for (size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
    const std::vector<Op>& program = schedule.ranks[rank];
    const std::vector<OpTimes>& times = result.ops[rank];
    IdleCauses& causes = result.idle_by_cause.emplace_back();
    if (program.empty()) {
      causes.drain = result.makespan;
      continue;
    }
    causes.fill = times.front().start;
    causes.drain = result.makespan - times.back().end;
    double waits = 0;
    for_each_step(program, [&](size_t i, std::span<const Op> ops) {
      const double free = i == 0 ? times[0].start : times[i - 1].end;
      if (times[i].start <= free) return;
      double exists = free;
      for (const Op& op : ops) exists = std::max(exists, made[execution.input_of(op)]);
      waits += times[i].start - free;
      causes.message += times[i].start - exists;
    });
    const double rest = std::max(0.0, waits - causes.message);
    causes.imbalance = std::min(rest, result.idle[rank] - least_idle);
    causes.dependency = rest - causes.imbalance;
  }
}

// What an op changes of the memory that its rank holds: `taken` when it starts, `freed` when it
// ends.
struct MemoryChange {
  double taken = 0;
  double freed = 0;
};

MemoryChange change_of(OpKind kind, const StageMemory& memory) {
  switch (kind) {
    case OpKind::forward:
      return {memory.activation, 0};
    case OpKind::backward:
      return {0, memory.activation};
    case OpKind::backward_input:
      // What the weight gradient needs may be more than the activation was.
      return {std::max(0.0, memory.kept_after_input - memory.activation),
              std::max(0.0, memory.activation - memory.kept_after_input)};
    case OpKind::backward_weight:
      return {0, memory.kept_after_input};
  }
  return {};
}

// Of an op, or of an overlapped pair, whose ops hold theirs at once.
MemoryChange change_of(std::span<const Op> ops, const std::vector<StageMemory>& memory) {
  constexpr StageMemory kUnit;
  MemoryChange sum;
  for (const Op& op : ops) {
    const auto stage = static_cast<size_t>(op.stage);
    const StageMemory& held = memory.empty() ? kUnit : memory[memory.size() == 1 ? 0 : stage];
    const MemoryChange change = change_of(op.kind, held);
    sum.taken += change.taken;
    sum.freed += change.freed;
  }
  return sum;
}

// A clock that notes when every rank first holds the most, which its program's order tells, and
// stops once it knows of all ranks.
class PeakClock {
 public:
  PeakClock(const Schedule& schedule, const Costs& costs)
      : clock_(schedule, costs), since_(schedule.ranks.size(), 0) {
    for (const std::vector<Op>& program : schedule.ranks) {
      fullest_.push_back(fullest(program, costs.memory));
      if (!program.empty()) ++open_;
    }
  }

  double run(size_t rank, size_t position, std::span<const Op> ops, double ready) {
    if (position == fullest_[rank]) {
      since_[rank] = std::max(clock_.rank_free(rank), ready);
      --open_;
    }
    return clock_.run(rank, position, ops, ready);
  }

  double deliver(size_t edge, size_t output, double end) {
    return clock_.deliver(edge, output, end);
  }

  bool stopped() const { return open_ == 0; }
  const std::vector<double>& since() const { return since_; }

 private:
  // The first position that has a rank hold the most.
  static size_t fullest(const std::vector<Op>& program, const std::vector<StageMemory>& memory) {
    double units = 0, most = 0;
    size_t place = 0;
    for_each_step(program, [&](size_t i, std::span<const Op> ops) {
      const MemoryChange change = change_of(ops, memory);
      units += change.taken;
      if (units > most) {
        most = units;
        place = i;
      }
      units -= change.freed;
    });
    return place;
  }

  Clock clock_;
  std::vector<size_t> fullest_;  // by rank: a position
  std::vector<double> since_;    // by rank
  size_t open_ = 0;              // ranks that did not get there yet
};

void summarize_memory(const Schedule& schedule, const Costs& costs, Simulation& result) {
  for (size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
    const std::vector<Op>& program = schedule.ranks[rank];
    double held = 0, peak = 0;
    for_each_step(program, [&](size_t, std::span<const Op> ops) {
      const MemoryChange change = change_of(ops, {});
      peak = std::max(peak, held + change.taken);
      held += change.taken - change.freed;
    });
    result.peak_activations.push_back(static_cast<int>(peak));
    std::vector<MemoryStep>& steps = result.memory.emplace_back();
    const auto hold = [&](double time, double change) {
      if (change == 0) return;
      const double units = (steps.empty() ? 0 : steps.back().units) + change;
      if (steps.empty() || steps.back().time != time) steps.push_back({time, 0});
      steps.back().units = units;
    };
    double most = 0;
    for_each_step(program, [&](size_t i, std::span<const Op> ops) {
      const MemoryChange change = change_of(ops, costs.memory);
      hold(result.ops[rank][i].start, change.taken);
      if (!steps.empty()) most = std::max(most, steps.back().units);
      hold(result.ops[rank][i].end, -change.freed);
    });
    result.peak_memory.push_back(most);
  }
}

void summarize_slack(const Schedule& schedule, Simulation& result) {
  result.tail_slack.resize(schedule.ranks.size());
  for (size_t stage = 0; stage < schedule.stages.size(); ++stage) {
    const StagePlace& place = schedule.stages[stage];
    std::vector<double>& slack = result.tail_slack[static_cast<size_t>(place.rank)];
    slack.resize(std::max(slack.size(), static_cast<size_t>(place.chunk) + 1), 0.0);
    const double last = result.last_gradient[stage];
    if (last > 0) slack[static_cast<size_t>(place.chunk)] = result.makespan - last;
  }
}

int64_t count_messages(const Schedule& schedule) {
  const auto crosses = [&](int from, int to) {
    return from >= 0 && to < static_cast<int>(schedule.stages.size()) &&
           schedule.stages[static_cast<size_t>(from)].rank !=
               schedule.stages[static_cast<size_t>(to)].rank;
  };
  int64_t messages = 0;
  for (const std::vector<Op>& program : schedule.ranks) {
    for (const Op& op : program) {
      if (op.kind == OpKind::backward_weight) continue;
      const bool forward = op.kind == OpKind::forward;
      messages += crosses(forward ? op.stage : op.stage - 1, forward ? op.stage + 1 : op.stage);
    }
  }
  return messages;
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

Costs least_in_pairs(Costs costs) {
  const double share = 1 - costs.overlap / 2;
  for (StageCost& cost : costs.stages) {
    cost = {cost.forward * share, cost.input * share, cost.weight * share};
  }
  costs.overlap = 0;
  return costs;
}

LinkCost Costs::of_link(int from_rank, int to_rank) const {
  if (from_rank == to_rank) return {};
  return link ? link(from_rank, to_rank) : LinkCost{hop, transfer};
}

namespace {

// A clock that has seen the whole step.
template <class AnyClock>
AnyClock run_through(Execution& execution, const Schedule& schedule, const Costs& costs) {
  check_arguments(schedule, costs);
  AnyClock clock(schedule, costs);
  execution.run(clock);
  TRIREME_CHECK(execution.complete());
  return clock;
}

}  // namespace

Simulation simulate(const Schedule& schedule, const Costs& costs) {
  Execution execution(schedule);
  auto recording = run_through<RecordingClock>(execution, schedule, costs);
  Simulation result;
  result.ops = recording.take_ops();
  summarize_time(schedule, recording.clock(), result);
  summarize_causes(schedule, execution, recording.made(), result);
  summarize_memory(schedule, costs, result);
  summarize_slack(schedule, result);
  result.messages = count_messages(schedule);
  return result;
}

Recording recording_of(const Schedule& schedule, const Costs& costs) {
  Execution execution(schedule);
  auto clock = run_through<RecordingClock>(execution, schedule, costs);
  return {clock.clock().timing(), clock.take_ops()};
}

Timing timing_of(const Schedule& schedule, const Costs& costs) {
  Execution execution(schedule);
  return run_through<Clock>(execution, schedule, costs).timing();
}

std::vector<double> peak_times(const Schedule& schedule, const Costs& costs) {
  check_arguments(schedule, costs);
  Execution execution(schedule);
  PeakClock clock(schedule, costs);
  execution.run(clock);
  TRIREME_CHECK(clock.stopped());
  return clock.since();
}

std::optional<Timing> timing_within(const Schedule& schedule, const Costs& costs, double most) {
  check_arguments(schedule, costs);
  Execution execution(schedule);
  LimitedClock clock(schedule, costs, most);
  execution.run(clock);
  if (clock.stopped()) return std::nullopt;
  TRIREME_CHECK(execution.complete());
  return clock.timing();
}

double makespan_of(const Schedule& schedule, const Costs& costs) {
  return timing_of(schedule, costs).makespan;
}

double bubble_of_all(const std::vector<PipelineRun>& pipelines) {
  double busy = 0, longest = 0;
  int replicas = 0;
  for (const PipelineRun& pipeline : pipelines) {
    busy += pipeline.replicas * pipeline.makespan * (1 - pipeline.bubble_fraction);
    longest = std::max(longest, pipeline.makespan);
    replicas += pipeline.replicas;
  }
  return longest > 0 ? 1 - busy / (replicas * longest) : 0;
}

}  // namespace trireme
