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
        stages_(flow.stages.size()),
        programs_(flow.of_rank.size()) {
    claim_memory();
    for (size_t rank = 0; rank < ranks_.size(); ++rank) {
      programs_[rank].reserve(flow.of_rank[rank].size() * static_cast<size_t>(flow.micro_batches));
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
    double held = 0;
    double reserved = 0;  // for its stages that have no micro-batch
    int chosen = -1;      // type to run next, -1 for none
    double start = kNever;
  };

  struct Stage {
    int first = -1, last = -1;  // of its types
    double room = 0;            // what it holds at most for one micro-batch
    int open = 0;               // micro-batches between its first op and its last
  };

  size_t stage_of(int type) const { return static_cast<size_t>(type) % flow_.stages.size(); }

  // The first of a stage's ops claims what all of them take.
  void claim_memory() {
    for (const int type : flow_.order) {
      const double holds = flow_.types[static_cast<size_t>(type)].holds;
      Stage& stage = stages_[stage_of(type)];
      if (stage.first < 0) stage.first = type;
      stage.last = type;
      stage.room += std::max(0.0, holds);
    }
    for (const Stage& stage : stages_) {
      const int rank = flow_.types[static_cast<size_t>(stage.first)].rank;
      ranks_[static_cast<size_t>(rank)].reserved += stage.room;
    }
  }

  bool may_open(const Rank& rank, int rank_number, const Stage& stage) const {
    const double reserved = rank.reserved - (stage.open == 0 ? stage.room : 0);
    return rank.held + stage.room + reserved <= rule_.depth[static_cast<size_t>(rank_number)];
  }

  // When the next op of this type could start here; never if it has to wait for an op that is not
  // yet placed.
  double earliest(const Rank& rank, int rank_number, int type) const {
    const int k = done_[static_cast<size_t>(type)];
    const Flow::Type& made = flow_.types[static_cast<size_t>(type)];
    if (k == flow_.micro_batches) return kNever;
    const Stage& stage = stages_[stage_of(type)];
    if (type == stage.first && !may_open(rank, rank_number, stage)) return kNever;
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
    account(rank, type);
    choose(number);
    for (const int user : flow_.users[static_cast<size_t>(type)]) {
      const int other = flow_.types[static_cast<size_t>(user)].rank;
      if (other != number) choose(other);
    }
  }

  void account(Rank& rank, int type) {
    Stage& stage = stages_[stage_of(type)];
    const double holds = flow_.types[static_cast<size_t>(type)].holds;
    rank.held += type == stage.first ? stage.room : std::min(0.0, holds);
    if (type == stage.first && stage.open++ == 0) rank.reserved -= stage.room;
    if (type == stage.last && --stage.open == 0) rank.reserved += stage.room;
  }

  const Flow& flow_;
  const ListRule& rule_;
  std::vector<double> ends_;  // by op
  std::vector<int> done_;     // by type
  std::vector<Rank> ranks_;
  std::vector<Stage> stages_;
  std::vector<double> starts_;  // of the types of the rank that chooses
  Programs programs_;
};

}  // namespace

Programs list_schedule(const Flow& flow, const ListRule& rule) {
  return Walk(flow, rule).run();
}

}  // namespace trireme
