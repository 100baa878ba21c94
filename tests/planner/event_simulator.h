#pragma once

#include <algorithm>
#include <deque>
#include <map>
#include <queue>
#include <set>
#include <tuple>
#include <vector>

#include "planner/simulator.h"

namespace trireme {

// A simulation of the same step that shares nothing with planner/simulator.cc: time passes from
// event to event, every rank is a state machine that meters how long it is in which state, every
// link holds a queue, and what is there is a set of names. Slow, and plain enough to be believed.
class EventSimulator {
 public:
  EventSimulator(const Schedule& schedule, const Costs& costs)
      : schedule_(schedule), costs_(costs), ranks_(schedule.ranks.size()) {}

  struct Rank {
    size_t next = 0;
    enum class State { waiting, in_transit, running } state = State::waiting;
    double since = 0;  // in this state
    bool started = false;
    double first_start = 0, last_end = 0;
    double busy = 0, fill = 0, waited = 0, in_transit = 0;
    int activations = 0, peak_activations = 0;
    double memory = 0, peak_memory = 0;
    std::vector<OpTimes> ops;
  };

  void run() {
    for (size_t rank = 0; rank < ranks_.size(); ++rank) {
      ranks_[rank].ops.resize(schedule_.ranks[rank].size());
      look(rank);
    }
    while (!events_.empty()) {
      const Event event = events_.top();
      events_.pop();
      now_ = event.time;
      if (event.what == What::op_ends) end_op(event.rank);
      if (event.what == What::link_frees) free_link({event.rank, event.to});
      if (event.what == What::message_arrives) {
        here_.insert({event.to, event.output});
        look(event.to);
      }
    }
    for (const Rank& rank : ranks_) makespan_ = std::max(makespan_, rank.last_end);
  }

  const Rank& rank(size_t number) const { return ranks_[number]; }
  double makespan() const { return makespan_; }
  double idle(size_t rank) const { return makespan_ - ranks_[rank].busy; }

 private:
  using Output = std::tuple<bool, int, int>;  // of a forward?, stage, micro-batch
  enum class What { op_ends, link_frees, message_arrives };
  struct Event {
    double time;
    int sequence;  // earlier made, earlier served
    What what;
    size_t rank, to;
    Output output;
    bool operator<(const Event& other) const {
      return std::tie(time, sequence) > std::tie(other.time, other.sequence);
    }
  };
  struct LinkQueue {
    bool busy = false;
    std::deque<Output> waiting;
  };

  void push(double time, What what, size_t rank, size_t to, Output output) {
    events_.push({time, sequence_++, what, rank, to, output});
  }

  std::vector<Op> current(size_t rank) const {
    const std::vector<Op>& program = schedule_.ranks[rank];
    const size_t at = ranks_[rank].next;
    if (at == program.size()) return {};
    if (program[at].overlaps_next) return {program[at], program[at + 1]};
    return {program[at]};
  }

  std::vector<Output> inputs(const Op& op) const {
    std::vector<Output> needs;
    if (op.kind == OpKind::forward && op.stage > 0) {
      needs.emplace_back(true, op.stage - 1, op.micro_batch);
    }
    if (op.kind == OpKind::backward || op.kind == OpKind::backward_input) {
      needs.emplace_back(true, op.stage, op.micro_batch);
      if (op.stage + 1 < static_cast<int>(schedule_.stages.size())) {
        needs.emplace_back(false, op.stage + 1, op.micro_batch);
      }
    }
    if (op.kind == OpKind::backward_weight) needs.emplace_back(false, op.stage, op.micro_batch);
    return needs;
  }

  size_t rank_of(int stage) const {
    return static_cast<size_t>(schedule_.stages[size_t(stage)].rank);
  }

  double duration(size_t rank, size_t position) const {
    if (costs_.op_time) return costs_.op_time(static_cast<int>(rank), position);
    const Op& op = schedule_.ranks[rank][position];
    const StageCost& cost = costs_.stages[size_t(op.stage) % costs_.stages.size()];
    if (op.kind == OpKind::forward) return cost.forward;
    if (op.kind == OpKind::backward_input) return cost.input;
    return op.kind == OpKind::backward_weight ? cost.weight : cost.input + cost.weight;
  }

  // Sees whether an idle rank can go on, and what it waits for if not.
  void look(size_t number) {
    Rank& rank = ranks_[number];
    const std::vector<Op> ops = current(number);
    if (rank.state == Rank::State::running || ops.empty()) return;
    bool all_here = true, all_made = true;
    for (const Op& op : ops) {
      for (const Output& need : inputs(op)) {
        all_made = all_made && made_.count(need) > 0;
        all_here = all_here && here_.count({number, need}) > 0;
      }
    }
    const auto state = all_here   ? Rank::State::running
                       : all_made ? Rank::State::in_transit
                                  : Rank::State::waiting;
    if (state == rank.state) return;
    pass(rank);
    rank.state = state;
    if (state == Rank::State::running) start_op(number, ops);
  }

  // Books the time in the state that ends now.
  void pass(Rank& rank) {
    const double time = now_ - rank.since;
    if (rank.state == Rank::State::running) {
      rank.busy += time;
    } else if (!rank.started) {
      rank.fill += time;
    } else {
      rank.waited += time;
      if (rank.state == Rank::State::in_transit) rank.in_transit += time;
    }
    rank.since = now_;
  }

  StageMemory memory_of(const Op& op) const {
    return costs_.memory.empty() ? StageMemory{}
                                 : costs_.memory[size_t(op.stage) % costs_.memory.size()];
  }

  void start_op(size_t number, const std::vector<Op>& ops) {
    Rank& rank = ranks_[number];
    if (!rank.started) rank.first_start = now_;
    rank.started = true;
    double time = 0, shorter = 0;
    for (size_t k = 0; k < ops.size(); ++k) {
      const double one = duration(number, rank.next + k);
      shorter = k == 0 ? one : std::min(shorter, one);
      time += one;
      rank.ops[rank.next + k].start = now_;
      const StageMemory memory = memory_of(ops[k]);
      if (ops[k].kind == OpKind::forward) {
        ++rank.activations;
        rank.memory += memory.activation;
      } else if (ops[k].kind == OpKind::backward_input &&
                 memory.kept_after_input > memory.activation) {
        rank.memory += memory.kept_after_input - memory.activation;
      }
    }
    rank.peak_activations = std::max(rank.peak_activations, rank.activations);
    rank.peak_memory = std::max(rank.peak_memory, rank.memory);
    if (ops.size() == 2) time -= costs_.overlap * shorter;
    push(now_ + time, What::op_ends, number, number, {});
  }

  void end_op(size_t number) {
    Rank& rank = ranks_[number];
    pass(rank);
    rank.state = Rank::State::waiting;
    rank.last_end = now_;
    for (const Op& op : current(number)) {
      rank.ops[rank.next++].end = now_;
      const StageMemory memory = memory_of(op);
      if (op.kind == OpKind::backward) rank.memory -= memory.activation;
      if (op.kind == OpKind::backward_weight) rank.memory -= memory.kept_after_input;
      if (op.kind == OpKind::backward_input && memory.kept_after_input < memory.activation) {
        rank.memory -= memory.activation - memory.kept_after_input;
      }
      if (op.kind == OpKind::backward || op.kind == OpKind::backward_weight) --rank.activations;
      if (op.kind != OpKind::backward_weight) make(number, op);
    }
    look(number);
  }

  void make(size_t number, const Op& op) {
    const bool forward = op.kind == OpKind::forward;
    const Output output{forward, op.stage, op.micro_batch};
    made_.insert(output);
    here_.insert({number, output});
    const int taker = forward ? op.stage + 1 : op.stage - 1;
    if (taker < 0 || taker >= static_cast<int>(schedule_.stages.size())) return;
    const size_t to = rank_of(taker);
    if (to == number) return;
    links_[{number, to}].waiting.push_back(output);
    serve({number, to});
    look(to);
  }

  LinkCost cost_of(std::pair<size_t, size_t> link) const {
    if (costs_.link)
      return costs_.link(static_cast<int>(link.first), static_cast<int>(link.second));
    return {costs_.hop, costs_.transfer};
  }

  void serve(std::pair<size_t, size_t> link) {
    LinkQueue& queue = links_[link];
    if (queue.busy || queue.waiting.empty()) return;
    queue.busy = true;
    push(now_ + cost_of(link).transfer, What::link_frees, link.first, link.second, {});
  }

  void free_link(std::pair<size_t, size_t> link) {
    LinkQueue& queue = links_[link];
    const Output output = queue.waiting.front();
    queue.waiting.pop_front();
    queue.busy = false;
    push(now_ + cost_of(link).hop, What::message_arrives, link.first, link.second, output);
    serve(link);
  }

  const Schedule& schedule_;
  const Costs& costs_;
  std::vector<Rank> ranks_;
  std::map<std::pair<size_t, size_t>, LinkQueue> links_;
  std::set<Output> made_;
  std::set<std::pair<size_t, Output>> here_;  // on this rank
  std::priority_queue<Event> events_;
  double now_ = 0, makespan_ = 0;
  int sequence_ = 0;
};

}  // namespace trireme
