// How good is the search for a schedule, and how long does it take?
//
//   schedule-search [instances]
//
// Random requests (tests/planner/synthesis_instances.h), 500 unless told, in turn with one and two
// stages per rank: how often the search is worse than the best family member within the same memory
// (never, or the program fails), how often it is better, and how far above the proven lower bound
// it ends. Then one large request, timed.

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <limits>
#include <vector>

#include "planner/synthesis/automatic.h"
#include "tests/planner/synthesis_instances.h"

namespace trireme::bench {
namespace {

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double best_of_family(const AutoChoice& choice) {
  double best = std::numeric_limits<double>::infinity();
  for (const Considered& one : choice.considered) {
    if (one.schedule != "synthesized" && one.makespan) best = std::min(best, *one.makespan);
  }
  return best;
}

struct Tally {
  int worse = 0, uneven = 0, uneven_better = 0, family_is_proven = 0;
  std::vector<double> gaps, seconds;

  void add(const AutoRequest& request) {
    constexpr double kTie = 1 + 1e-9;
    const auto begin = std::chrono::steady_clock::now();
    const AutoChoice choice = choose_schedule(request);
    seconds.push_back(seconds_since(begin));
    const double family = best_of_family(choice);
    gaps.push_back(choice.gap());
    worse += choice.makespan > family * kTie ? 1 : 0;
    if (!is_uneven(request)) return;
    ++uneven;
    uneven_better += choice.makespan * kTie < family ? 1 : 0;
    family_is_proven += family <= choice.lower_bound * kTie ? 1 : 0;
  }

  void print(const char* name) {
    std::sort(gaps.begin(), gaps.end());
    std::sort(seconds.begin(), seconds.end());
    const auto gap = [&](double share) {
      return 100 * gaps[static_cast<size_t>(share * static_cast<double>(gaps.size() - 1))];
    };
    fmt::print("{}: {} requests, worse than the family {}\n", name, gaps.size(), worse);
    fmt::print("  uneven: better than the family {} of {}; in {} the family meets the bound\n",
               uneven_better, uneven, family_is_proven);
    fmt::print(
        "  gap to the lower bound: median {:.3f} %, 75th {:.3f} %, 90th {:.3f} %, most {:.3f} %\n",
        gap(0.5), gap(0.75), gap(0.9), gap(1));
    fmt::print("  seconds: median {:.3f}, most {:.3f}\n", seconds[seconds.size() / 2],
               seconds.back());
  }
};

void print_large(int chunks, int limit) {
  RandomRequests random(5);
  AutoRequest request = random.next(chunks);
  request.pipeline = 16;
  request.micro_batches = 128;
  request.costs.stages.clear();
  for (int stage = 0; stage < 16 * chunks; ++stage) {
    request.costs.stages.push_back(
        {random.share(0.5, 1.5), random.share(0.5, 1.5), random.share(0.5, 1.5)});
  }
  request.costs.hop = 0.3;
  request.memory_limit = std::vector<double>{static_cast<double>(limit)};
  const auto begin = std::chrono::steady_clock::now();
  const AutoChoice choice = choose_schedule(request);
  fmt::print("16 ranks, 128 micro-batches, {} stages each, limit {}: {:.2f} s, gap {:.3f} %, {}\n",
             chunks, limit, seconds_since(begin), 100 * choice.gap(), choice.origin);
}

int run(int instances) {
  Tally one, two, all;
  RandomRequests random(1);
  for (int i = 0; i < instances; ++i) {
    const AutoRequest request = random.next(1 + i % 2);
    (i % 2 == 0 ? one : two).add(request);
  }
  one.print("one stage per rank");
  two.print("two stages per rank");
  all.worse = one.worse + two.worse;
  all.uneven = one.uneven + two.uneven;
  all.uneven_better = one.uneven_better + two.uneven_better;
  all.family_is_proven = one.family_is_proven + two.family_is_proven;
  for (const Tally* part : {&one, &two}) {
    all.gaps.insert(all.gaps.end(), part->gaps.begin(), part->gaps.end());
    all.seconds.insert(all.seconds.end(), part->seconds.begin(), part->seconds.end());
  }
  all.print("all");
  print_large(1, 12);
  print_large(1, 24);
  print_large(2, 40);
  return all.worse == 0 ? 0 : 1;
}

}  // namespace
}  // namespace trireme::bench

int main(int argc, char** argv) {
  return trireme::bench::run(argc > 1 ? std::max(2, std::atoi(argv[1])) : 500);
}
