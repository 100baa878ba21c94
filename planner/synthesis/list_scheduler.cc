#include "planner/synthesis/list_scheduler.h"

#include <algorithm>
#include <limits>

#include "topology/base/check.h"

namespace trireme {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

class Walk {
 public:
  Walk(const Flow& flow, const ListRule& rule)
      : flow_(flow),
        rule_(rule),
        ends_(flow.op_count(), 0),
        done_(flow.type_count(), 0),
        ranks_(flow.of_rank.size()),
        stage_held_(flow.stages.size(), 0),
        programs_(flow.of_rank.size()) {
    for (size_t rank = 0; rank < ranks_.size(); ++rank) {
      programs_[rank].reserve(flow.of_rank[rank].size() * static_cast<size_t>(flow.micro_batches));
      ranks_[rank].empty_stages = static_cast<int>(flow.of_rank[rank].size() / 3);
      choose(static_cast<int>(rank));
    }
  }

  Programs run() {
    for (size_t left = flow_.op_count(); left > 0; --left) {
      size_t first = 0;
      for (size_t rank = 1; rank < ranks_.size(); ++rank) {
        if (ranks_[rank].start < ranks_[first].start) first = rank;
      }
      TRIREME_CHECK(ranks_[first].start < kNever);
      take(static_cast<int>(first));
    }
    return std::move(programs_);
  }

 private:
  struct Rank {
    double free = 0;
    int held = 0;
    int empty_stages = 0;  // that hold no activation
    int chosen = -1;       // type to run next, -1 for none
    double start = kNever;
  };

  size_t stage_of(int type) const { return static_cast<size_t>(type) % flow_.stages.size(); }

  bool may_take(const Rank& rank, int rank_number, int type) const {
    const int empty = rank.empty_stages - (stage_held_[stage_of(type)] == 0 ? 1 : 0);
    return rank.held + 1 + empty <= rule_.depth[static_cast<size_t>(rank_number)];
  }

  // When the next op of this type could start here; never if it has to wait for an op that is not
  // yet placed.
  double earliest(const Rank& rank, int rank_number, int type) const {
    const int k = done_[static_cast<size_t>(type)];
    const Flow::Type& made = flow_.types[static_cast<size_t>(type)];
    if (k == flow_.micro_batches) return kNever;
    if (made.holds > 0 && !may_take(rank, rank_number, type)) return kNever;
    double start = rank.free;
    for (const Flow::Input& input : made.inputs) {
      if (done_[static_cast<size_t>(input.type)] <= k) return kNever;
      start = std::max(start, ends_[flow_.op(input.type, k)] + input.lag);
    }
    return start;
  }

  void choose(int number) {
    Rank& rank = ranks_[static_cast<size_t>(number)];
    rank.chosen = -1;
    rank.start = kNever;
    double until = kNever;
    starts_.clear();
    for (const int type : flow_.of_rank[static_cast<size_t>(number)]) {
      const double start = earliest(rank, number, type);
      starts_.push_back(start);
      until = std::min(until, start + rule_.patience * flow_.types[static_cast<size_t>(type)].time);
    }
    double least = kNever;
    for (size_t i = 0; i < starts_.size(); ++i) {
      if (starts_[i] == kNever || starts_[i] > until) continue;
      const int type = flow_.of_rank[static_cast<size_t>(number)][i];
      const double key = rule_.keys[flow_.op(type, done_[static_cast<size_t>(type)])];
      if (key < least || (key == least && starts_[i] < rank.start)) {
        least = key;
        rank.chosen = type;
        rank.start = starts_[i];
      }
    }
  }

  void take(int number) {
    Rank& rank = ranks_[static_cast<size_t>(number)];
    const int type = rank.chosen;
    const Flow::Type& made = flow_.types[static_cast<size_t>(type)];
    programs_[static_cast<size_t>(number)].push_back(static_cast<int16_t>(type));
    rank.free = rank.start + made.time;
    ends_[flow_.op(type, done_[static_cast<size_t>(type)]++)] = rank.free;
    if (made.holds != 0) {
      int& held = stage_held_[stage_of(type)];
      if (held == 0) --rank.empty_stages;
      held += made.holds;
      if (held == 0) ++rank.empty_stages;
      rank.held += made.holds;
    }
    choose(number);
    for (const int user : flow_.users[static_cast<size_t>(type)]) {
      const int other = flow_.types[static_cast<size_t>(user)].rank;
      if (other != number) choose(other);
    }
  }

  const Flow& flow_;
  const ListRule& rule_;
  std::vector<double> ends_;  // by op
  std::vector<int> done_;     // by type
  std::vector<Rank> ranks_;
  std::vector<int> stage_held_;  // by stage
  std::vector<double> starts_;   // of the types of the rank that chooses
  Programs programs_;
};

}  // namespace

Programs list_schedule(const Flow& flow, const ListRule& rule) {
  return Walk(flow, rule).run();
}

}  // namespace trireme
