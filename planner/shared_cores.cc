#include "planner/shared_cores.h"

#include <algorithm>
#include <limits>
#include <map>

#include "planner/execution.h"
#include "topology/base/check.h"

namespace trireme {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

// Time passes from event to event: an op ends, or a message arrives at a rank that waits for it.
class SharedClock {
 public:
  SharedClock(const Schedule& schedule, const Costs& costs, const SharedCores& machines)
      : schedule_(schedule),
        costs_(costs),
        machines_(machines),
        numbers_(schedule),
        there_(numbers_.outputs(), kNever),
        ranks_(schedule.ranks.size()),
        load_(machines.cores.size()) {
    TRIREME_CHECK(machines.demand.size() == schedule.ranks.size());
    there_.back() = 0;
    for (const std::vector<Op>& program : schedule.ranks) seconds_.emplace_back(program.size());
  }

  std::vector<std::vector<double>> run() {
    for (;;) {
      start_what_can();
      const double next = set_speeds();
      if (next == kNever) break;
      advance(next);
    }
    for (size_t r = 0; r < ranks_.size(); ++r) {
      TRIREME_CHECK(ranks_[r].next == schedule_.ranks[r].size());
    }
    return std::move(seconds_);
  }

 private:
  struct RankState {
    size_t next = 0;
    bool running = false;
    double started = 0;
    double left = 0;   // seconds of the op at full speed
    double speed = 1;  // 1: full
  };

  size_t width(size_t rank) const {
    return schedule_.ranks[rank][ranks_[rank].next].overlaps_next ? 2 : 1;
  }

  double single(size_t rank, size_t position) const {
    if (costs_.op_time) return costs_.op_time(static_cast<int>(rank), position);
    const Op& op = schedule_.ranks[rank][position];
    return costs_.of_stage(op.stage).of(op.kind);
  }

  // Of the op or pair that is next, at full speed.
  double duration(size_t rank) const {
    const size_t at = ranks_[rank].next;
    const double first = single(rank, at);
    if (width(rank) == 1) return first;
    const double second = single(rank, at + 1);
    return first + second - costs_.overlap * std::min(first, second);
  }

  // When the inputs of the next op or pair are there; never, as far as is known, at the end.
  double ready(size_t rank) const {
    const std::vector<Op>& program = schedule_.ranks[rank];
    const size_t at = ranks_[rank].next;
    if (at == program.size()) return kNever;
    double time = 0;
    for (size_t i = at; i < at + width(rank); ++i) {
      time = std::max(time, there_[numbers_.input_of(program[i])]);
    }
    return time;
  }

  // An op of no length ends at once, which may let others start at the same time.
  void start_what_can() {
    for (bool again = true; again;) {
      again = false;
      for (size_t r = 0; r < ranks_.size(); ++r) {
        RankState& rank = ranks_[r];
        if (rank.running || ready(r) > now_) continue;
        rank.running = true;
        rank.started = now_;
        rank.left = duration(r);
        if (rank.left > 0) continue;
        end_op(r);
        again = true;
      }
    }
  }

  // The next event, at the speeds that hold until then.
  double set_speeds() {
    std::fill(load_.begin(), load_.end(), 0);
    for (size_t r = 0; r < ranks_.size(); ++r) {
      if (!ranks_[r].running) continue;
      for (size_t m = 0; m < load_.size(); ++m) load_[m] += machines_.demand[r][m];
    }
    double next = kNever;
    for (size_t r = 0; r < ranks_.size(); ++r) {
      RankState& rank = ranks_[r];
      if (!rank.running) {
        next = std::min(next, ready(r));
        continue;
      }
      rank.speed = 1;
      for (size_t m = 0; m < load_.size(); ++m) {
        if (machines_.demand[r][m] > 0 && load_[m] > machines_.cores[m]) {
          rank.speed = std::min(rank.speed, machines_.cores[m] / load_[m]);
        }
      }
      next = std::min(next, now_ + rank.left / rank.speed);
    }
    return next;
  }

  // What ends is told by the same expression as in set_speeds: rounding leaves no remnants.
  void advance(double to) {
    std::vector<size_t> ended;
    for (size_t r = 0; r < ranks_.size(); ++r) {
      RankState& rank = ranks_[r];
      if (!rank.running) continue;
      if (now_ + rank.left / rank.speed <= to) {
        ended.push_back(r);
      } else {
        rank.left -= (to - now_) * rank.speed;
      }
    }
    now_ = to;
    for (const size_t r : ended) end_op(r);
  }

  void end_op(size_t r) {
    RankState& rank = ranks_[r];
    const double nominal = duration(r);
    const double stretch = nominal > 0 ? (now_ - rank.started) / nominal : 1;
    for (size_t left = width(r); left > 0; --left) {
      seconds_[r][rank.next] = stretch * single(r, rank.next);
      deliver(schedule_.ranks[r][rank.next++]);
    }
    rank.running = false;
  }

  void deliver(const Op& op) {
    if (op.kind == OpKind::backward_weight) return;
    const int last = static_cast<int>(schedule_.stages.size()) - 1;
    const bool forward = op.kind == OpKind::forward;
    if (!forward && op.stage == 0) return;
    Op taker = op;
    if (forward && op.stage == last) {
      taker.kind = OpKind::backward;
    } else {
      taker.stage += forward ? 1 : -1;
    }
    const int from = place(op.stage), to = place(taker.stage);
    const LinkCost cost = costs_.of_link(from, to);
    double& free = links_[{from, to}];
    free = std::max(free, now_) + cost.transfer;
    there_[numbers_.input_of(taker)] = free + cost.hop;
  }

  int place(int stage) const { return schedule_.stages[static_cast<size_t>(stage)].rank; }

  const Schedule& schedule_;
  const Costs& costs_;
  const SharedCores& machines_;
  Execution numbers_;          // numbers outputs; is not run
  std::vector<double> there_;  // by output: when it is where it is taken
  std::vector<RankState> ranks_;
  std::vector<double> load_;                     // by machine
  std::map<std::pair<int, int>, double> links_;  // until when each is busy
  double now_ = 0;
  std::vector<std::vector<double>> seconds_;
};

}  // namespace

std::vector<std::vector<double>> shared_op_seconds(const Schedule& schedule, const Costs& costs,
                                                   const SharedCores& machines) {
  return SharedClock(schedule, costs, machines).run();
}

}  // namespace trireme
