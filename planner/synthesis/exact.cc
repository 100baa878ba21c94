#include "planner/synthesis/exact.h"

#include <algorithm>
#include <limits>

namespace trireme {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
constexpr double kTie = 1e-9;

class Branching {
 public:
  Branching(const Flow& flow, const Windows& windows, Programs& best, double& makespan,
            int64_t& effort)
      : flow_(flow),
        windows_(windows),
        best_(best),
        makespan_(makespan),
        effort_(effort),
        programs_(flow.of_rank.size()),
        ends_(flow.op_count(), 0),
        done_(flow.type_count(), 0),
        free_(flow.of_rank.size(), 0),
        held_(flow.of_rank.size(), 0) {}

  bool run() {
    branch(0, -1, 0, flow_.op_count());
    return effort_ > 0;
  }

 private:
  struct Step {
    double start = 0;
    int rank = 0;
    int type = 0;
  };

  // When the next op of this type could start on its rank; never if it may not come next.
  double earliest(int type) const {
    const Flow::Type& made = flow_.types[static_cast<size_t>(type)];
    const auto rank = static_cast<size_t>(made.rank);
    const int k = done_[static_cast<size_t>(type)];
    if (k == flow_.micro_batches) return kNever;
    if (made.holds > 0 && held_[rank] + made.holds > flow_.limit[rank]) return kNever;
    double start = free_[rank];
    for (const Flow::Input& input : made.inputs) {
      if (done_[static_cast<size_t>(input.type)] <= k) return kNever;
      start = std::max(start, ends_[flow_.op(input.type, k)] + input.lag);
    }
    return start;
  }

  // The ops that may start next: after what has started last, and not so late that another op of
  // the rank would fit before. To move a forward ahead of the forwards of other stages could exceed
  // the limit, so there only a rank with a single stage is sure to have room.
  std::vector<Step> steps_after(double time, int last_rank) const {
    std::vector<Step> steps;
    for (int rank = 0; rank < flow_.ranks(); ++rank) {
      const std::vector<int>& types = flow_.of_rank[static_cast<size_t>(rank)];
      double fits_until = kNever;
      for (const int type : types) {
        const Flow::Type& made = flow_.types[static_cast<size_t>(type)];
        if (made.holds > 0 && types.size() > 3) continue;
        fits_until = std::min(fits_until, earliest(type) + made.time);
      }
      for (const int type : types) {
        const double start = earliest(type);
        const bool in_order = start > time || (start == time && rank > last_rank);
        if (start < kNever && in_order && start < fits_until) steps.push_back({start, rank, type});
      }
    }
    std::sort(steps.begin(), steps.end(), [&](const Step& a, const Step& b) {
      if (a.start != b.start) return a.start < b.start;
      return tail(a.type) > tail(b.type);
    });
    return steps;
  }

  double tail(int type) const {
    return windows_.tails[flow_.op(type, done_[static_cast<size_t>(type)])];
  }

  // No completion ends earlier, all further ops starting at `time` or later.
  double bound(double time) {
    struct Rest {
      double head = kNever, work = 0, tail = kNever;
    };
    std::vector<Rest> rests(free_.size());
    double least = 0;
    for (const int type : flow_.order) {
      const Flow::Type& made = flow_.types[static_cast<size_t>(type)];
      Rest& rest = rests[static_cast<size_t>(made.rank)];
      double now = std::max(time, free_[static_cast<size_t>(made.rank)]);
      for (int k = done_[static_cast<size_t>(type)]; k < flow_.micro_batches; ++k) {
        for (const Flow::Input& input : made.inputs) {
          now = std::max(now, ends_[flow_.op(input.type, k)] + input.lag);
        }
        rest.head = std::min(rest.head, now);
        now += made.time;
        rest.work += made.time;
        rest.tail = std::min(rest.tail, windows_.tails[flow_.op(type, k)]);
        ends_[flow_.op(type, k)] = now;  // at least; overwritten when the op is placed
        least = std::max(least, now + windows_.tails[flow_.op(type, k)]);
      }
    }
    for (const Rest& rest : rests) {
      if (rest.work > 0) least = std::max(least, rest.head + rest.work + rest.tail);
    }
    return least;
  }

  void branch(double time, int last_rank, double end, size_t left) {
    if (left == 0) {
      if (end < makespan_ * (1 - kTie)) {
        makespan_ = end;
        best_ = programs_;
      }
      return;
    }
    effort_ -= static_cast<int64_t>(flow_.op_count());
    if (effort_ <= 0 || bound(time) >= makespan_ * (1 - kTie)) return;
    for (const Step& step : steps_after(time, last_rank)) {
      if (effort_ <= 0) return;
      place(step, end, left);
    }
  }

  void place(const Step& step, double end, size_t left) {
    const Flow::Type& made = flow_.types[static_cast<size_t>(step.type)];
    const auto rank = static_cast<size_t>(step.rank), type = static_cast<size_t>(step.type);
    const double was_free = free_[rank];
    free_[rank] = step.start + made.time;
    ends_[flow_.op(step.type, done_[type])] = free_[rank];
    ++done_[type];
    held_[rank] += made.holds;
    programs_[rank].push_back(static_cast<int16_t>(step.type));
    branch(step.start, step.rank, std::max(end, free_[rank]), left - 1);
    programs_[rank].pop_back();
    held_[rank] -= made.holds;
    --done_[type];
    free_[rank] = was_free;
  }

  const Flow& flow_;
  const Windows& windows_;
  Programs& best_;
  double& makespan_;
  int64_t& effort_;
  Programs programs_;
  std::vector<double> ends_;  // by op
  std::vector<int> done_;     // by type
  std::vector<double> free_;  // by rank
  std::vector<double> held_;  // by rank
};

}  // namespace

bool improve_exactly(const Flow& flow, const Windows& windows, Programs& programs, double& makespan,
                     int64_t& effort) {
  const bool all_take_time = std::all_of(flow.types.begin(), flow.types.end(),
                                         [](const Flow::Type& type) { return type.time > 0; });
  return all_take_time && Branching(flow, windows, programs, makespan, effort).run();
}

}  // namespace trireme
