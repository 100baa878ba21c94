#include "planner/synthesis/synthesis.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "planner/synthesis/exact.h"
#include "planner/synthesis/list_scheduler.h"
#include "planner/synthesis/local_search.h"
#include "topology/base/check.h"

namespace trireme {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
constexpr double kTie = 1e-9;
constexpr int kListCost = 6;  // placing an op takes about as long as timing so many

class Synthesis {
 public:
  Synthesis(const Flow& flow, const Windows& windows, double goal, int64_t effort, uint64_t seed)
      : flow_(flow),
        back_(flow.reversed()),
        windows_(windows),
        goal_(goal),
        effort_(effort),
        random_(seed),
        clock_(flow),
        back_clock_(back_) {}

  Found run(std::vector<Draft> starts) {
    for (Draft& start : starts) {
      start.makespan = clock_.run(start.programs, kNever);
      TRIREME_CHECK(start.makespan < kNever);
      keep(std::move(start));
    }
    try_rules();
    for (size_t i = 0; i < std::min<size_t>(kPool, pool_.size()) && !finished(); ++i) swing(i);
    bool optimal = pool_.front().makespan <= goal_ * (1 + kTie);
    if (!optimal && flow_.op_count() <= kExactOps) optimal = search_exactly();
    if (!optimal) wander();
    return {pool_.front(), optimal};
  }

 private:
  static constexpr size_t kPool = 4;
  static constexpr size_t kExactOps = 150;

  // Local search and swings in turn until the effort is used up.
  void wander() {
    const int64_t all = effort_;
    for (size_t i = 0; i < pool_.size() && !finished(); ++i) {
      int64_t part = all / static_cast<int64_t>(2 * pool_.size());
      effort_ -= part;
      climb(i, part);
      effort_ += part;
    }
    while (!finished()) {
      swing(draw(pool_.size()));
      int64_t part = std::min(effort_, all / 12 + 1);
      effort_ -= part;
      climb(0, part);
      effort_ += part;
    }
  }

  bool search_exactly() {
    Draft draft = pool_.front();
    int64_t part = effort_ / 3;
    effort_ -= part;
    const bool complete = improve_exactly(flow_, windows_, draft.programs, draft.makespan, part);
    effort_ += std::max<int64_t>(part, 0);
    keep(std::move(draft));
    return complete;
  }

  bool finished() const { return effort_ <= 0 || pool_.front().makespan <= goal_ * (1 + kTie); }
  size_t draw(size_t below) { return static_cast<size_t>(random_() % below); }
  double share() { return static_cast<double>(random_() >> 11) * 0x1p-53; }

  // The pool holds the best drafts of unlike makespan, best first.
  void keep(Draft draft) {
    for (const Draft& known : pool_) {
      if (std::abs(known.makespan - draft.makespan) <= kTie * draft.makespan) return;
    }
    const auto place = std::find_if(pool_.begin(), pool_.end(), [&](const Draft& known) {
      return draft.makespan < known.makespan;
    });
    pool_.insert(place, std::move(draft));
    if (pool_.size() > kPool) pool_.pop_back();
  }

  void list(const ListRule& rule, const char* name) {
    effort_ -= kListCost * static_cast<int64_t>(flow_.op_count());
    Programs programs = list_schedule(flow_, rule);
    const double makespan = clock_.run(programs, kNever);
    keep({name, std::move(programs), makespan});
  }

  template <class Key>
  std::vector<double> keys(Key&& key) const {
    std::vector<double> made(flow_.op_count());
    for (int type = 0; type < static_cast<int>(flow_.type_count()); ++type) {
      for (int k = 0; k < flow_.micro_batches; ++k) made[flow_.op(type, k)] = key(type, k);
    }
    return made;
  }

  // What goes first: what has the most still to follow; gradients; forwards. Weight gradients fill
  // the gaps.
  void try_rules() {
    const int stages = static_cast<int>(flow_.stages.size());
    const double far = 4.0 * (1 + flow_.micro_batches);
    const auto by_kind = [&](int forward, int input) {
      return keys([=](int type, int k) {
        const int kind = type / stages;
        return far * (kind == 0 ? forward : kind == 1 ? input : 2) + k;
      });
    };
    struct Rule {
      const char* name;
      std::vector<double> keys;
    };
    const Rule rules[] = {{"a list by longest tail", keys([&](int type, int k) {
                             return -windows_.tails[flow_.op(type, k)] -
                                    flow_.types[static_cast<size_t>(type)].time;
                           })},
                          {"a list by gradients first", by_kind(1, 0)},
                          {"a list by forwards first", by_kind(0, 1)}};
    for (const std::vector<double>& depth : depths()) {
      for (const Rule& rule : rules) {
        for (const double patience : {0.0, 0.4, 0.9}) {
          if (!pool_.empty() && finished()) return;
          list({rule.keys, depth, patience}, rule.name);
        }
      }
    }
  }

  // All that memory allows, and less: for as many as 1F1B and eager 1F1B have in flight.
  std::vector<std::vector<double>> depths() const {
    std::vector<std::vector<double>> made = {flow_.limit};
    const int ranks = flow_.ranks();
    for (const int slope : {2, 1}) {
      std::vector<double> depth;
      for (int rank = 0; rank < ranks; ++rank) {
        const auto r = static_cast<size_t>(rank);
        const double chunks = static_cast<double>(flow_.of_rank[r].size()) / 3;
        double all = 0;
        for (const int type : flow_.of_rank[r]) {
          all += std::max(0.0, flow_.types[static_cast<size_t>(type)].holds);
        }
        const double wanted = slope * (ranks - 1 - rank) + 1 + (chunks - 1) * ranks;
        depth.push_back(
            std::min((1 + kTie) * std::max(wanted / chunks, 1.0) * all, flow_.limit[r]));
      }
      if (depth != made.back()) made.push_back(std::move(depth));
    }
    return made;
  }

  // Schedules backwards in time what a draft did, the last first, then forwards again in that
  // order: each pass closes the gaps that the other left (forward-backward improvement; Tormos and
  // Lova 2001). Stirred a little from the second round on.
  void swing(size_t which) {
    constexpr int kRounds = 6;
    Draft draft = pool_[which];
    clock_.run(draft.programs, kNever);
    double makespan = draft.makespan;
    double stir = 0;
    for (int round = 0; round < kRounds && !finished(); ++round) {
      const double patience = 0.9 * share();
      Programs back = list_schedule(back_, mirror(clock_, makespan, patience, stir));
      const double back_time = back_clock_.run(back, kNever);
      Programs turned = reversed(std::move(back));
      makespan = clock_.run(turned, kNever);
      keep({draft.name, std::move(turned), makespan});
      Programs forth = list_schedule(flow_, mirror(back_clock_, back_time, patience, stir));
      makespan = clock_.run(forth, kNever);
      keep({draft.name, std::move(forth), makespan});
      effort_ -= int64_t{2} * kListCost * static_cast<int64_t>(flow_.op_count());
      stir = 2 * share();
    }
  }

  // The rule that repeats in the other direction of time what `clock` last timed.
  ListRule mirror(const FlowClock& clock, double makespan, double patience, double stir) {
    const double mean = 1.0 / static_cast<double>(flow_.micro_batches) / 3 * makespan;
    return {keys([&](int type, int k) {
              return makespan - clock.end(type, flow_.micro_batches - 1 - k) +
                     (stir > 0 ? stir * mean * share() : 0);
            }),
            flow_.limit, patience};
  }

  void climb(size_t which, int64_t& effort) {
    Draft draft = pool_[which];
    draft.makespan = improve_programs(flow_, draft.programs, goal_, effort, random_);
    keep(std::move(draft));
  }

  const Flow& flow_;
  const Flow back_;
  const Windows& windows_;
  double goal_;
  int64_t effort_;
  std::mt19937_64 random_;
  FlowClock clock_, back_clock_;
  std::vector<Draft> pool_;
};

}  // namespace

Found synthesize(const Flow& flow, const Windows& windows, std::vector<Draft> starts, double goal,
                 int64_t effort, uint64_t seed) {
  return Synthesis(flow, windows, goal, effort, seed).run(std::move(starts));
}

}  // namespace trireme
