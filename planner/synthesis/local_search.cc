#include "planner/synthesis/local_search.h"

#include <algorithm>
#include <limits>

namespace trireme {
namespace {

constexpr double kTie = 1e-9;

// Two neighbours on a rank, the second of which starts when the first ends, on a longest path.
struct Link {
  size_t rank = 0;
  size_t position = 0;  // of the first
};

class Improvement {
 public:
  Improvement(const Flow& flow, Programs& best, std::mt19937_64& random)
      : flow_(flow),
        best_(best),
        now_(best),
        random_(random),
        clock_(flow),
        places_(flow.op_count()) {
    now_time_ = best_time_ = clock_.run(now_, std::numeric_limits<double>::infinity());
    find_links();
  }

  double run(double goal, int64_t& effort) {
    constexpr size_t kMemory = 40;
    std::vector<double> past(kMemory, now_time_);
    const auto cost = static_cast<int64_t>(flow_.op_count());
    for (size_t turn = 0; effort > 0 && best_time_ > goal * (1 + kTie) && !links_.empty(); ++turn) {
      effort -= cost;
      double& then = past[turn % kMemory];
      attempt(std::max(then, now_time_));
      then = now_time_;
    }
    return best_time_;
  }

 private:
  size_t draw(size_t below) { return static_cast<size_t>(random_() % below); }

  // One move; undone unless the step then ends by `most`.
  void attempt(double most) {
    const Link link = links_[draw(links_.size())];
    std::vector<int16_t>& program = now_[link.rank];
    // The first op goes behind the second or further, or the second before the first or further.
    constexpr size_t kReach = 6;
    const size_t reach = random_() % 2 == 0 ? 1 : 1 + draw(kReach);
    const bool later = random_() % 2 == 0;
    const size_t from = later ? link.position : link.position + 1;
    const size_t to =
        later ? std::min(program.size() - 1, from + reach) : from - std::min(from, reach);
    move(program, from, to);
    double time = std::numeric_limits<double>::infinity();
    if (within_limit(flow_, program, flow_.limit[link.rank])) time = clock_.run(now_, most);
    if (time > most) {
      move(program, to, from);
      return;
    }
    now_time_ = time;
    if (time < best_time_) {
      best_time_ = time;
      best_ = now_;
    }
    find_links();
  }

  static void move(std::vector<int16_t>& program, size_t from, size_t to) {
    const auto at = [&](size_t i) { return program.begin() + static_cast<std::ptrdiff_t>(i); };
    if (from < to) {
      std::rotate(at(from), at(from + 1), at(to + 1));
    } else {
      std::rotate(at(to), at(from), at(from + 1));
    }
  }

  // Walks one longest path back from the last end, and notes its links between unlike ops.
  void find_links() {
    links_.clear();
    done_.assign(flow_.type_count(), 0);
    size_t rank = 0;
    double last = -1;
    for (size_t r = 0; r < now_.size(); ++r) {
      for (size_t i = 0; i < now_[r].size(); ++i) {
        places_[flow_.op(now_[r][i], done_[static_cast<size_t>(now_[r][i])]++)] = i;
      }
      const double end = clock_.end(now_[r].back(), flow_.micro_batches - 1);
      if (end > last) {
        last = end;
        rank = r;
      }
    }
    size_t position = now_[rank].size() - 1;
    int type = now_[rank][position], k = flow_.micro_batches - 1;
    while (true) {
      const double start = clock_.starts()[flow_.op(type, k)];
      if (start <= 0) return;
      const double close = start - kTie * last;
      const Flow::Type& made = flow_.types[static_cast<size_t>(type)];
      const Flow::Input* cause = nullptr;
      for (const Flow::Input& input : made.inputs) {
        if (clock_.end(input.type, k) + input.lag >= close) cause = &input;
      }
      const bool crosses =
          cause != nullptr && flow_.types[static_cast<size_t>(cause->type)].rank != made.rank;
      if (position == 0 || (crosses && random_() % 2 == 0) || !follows(rank, position, close)) {
        if (cause == nullptr) return;
        type = cause->type;
        rank = static_cast<size_t>(flow_.types[static_cast<size_t>(type)].rank);
        position = places_[flow_.op(type, k)];
        continue;
      }
      --position;
      const int before = now_[rank][position];
      if (before != type) links_.push_back({rank, position});
      k = index_at(rank, position);
      type = before;
    }
  }

  // Whether the op before this position ends when the op at it starts.
  bool follows(size_t rank, size_t position, double start) {
    return clock_.end(now_[rank][position - 1], index_at(rank, position - 1)) >= start;
  }

  // The micro-batch of the op at this position: ops of one type stand in order.
  int index_at(size_t rank, size_t position) const {
    const int type = now_[rank][position];
    const auto first = places_.begin() + static_cast<std::ptrdiff_t>(flow_.op(type, 0));
    const auto found = std::lower_bound(first, first + flow_.micro_batches, position);
    return static_cast<int>(found - first);
  }

  const Flow& flow_;
  Programs& best_;
  Programs now_;
  std::mt19937_64& random_;
  FlowClock clock_;
  std::vector<size_t> places_;  // by op: its position on its rank
  std::vector<int> done_;       // by type
  std::vector<Link> links_;
  double now_time_ = 0, best_time_ = 0;
};

}  // namespace

double improve_programs(const Flow& flow, Programs& programs, double goal, int64_t& effort,
                        std::mt19937_64& random) {
  return Improvement(flow, programs, random).run(goal, effort);
}

}  // namespace trireme
