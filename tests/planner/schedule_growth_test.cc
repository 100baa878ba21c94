#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "planner/schedules/schedules.h"
#include "planner/simulator.h"

namespace trireme {
namespace {

using Program = std::vector<Op>;

Op numbered(Op op, int later) {
  op.micro_batch += later;
  return op;
}

// The program without one micro-batch, those behind it numbered anew.
Program without(const Program& program, int micro_batch) {
  Program left;
  for (const Op& op : program) {
    if (op.micro_batch == micro_batch) continue;
    left.push_back(numbered(op, op.micro_batch > micro_batch ? -1 : 0));
  }
  return left;
}

// The program without as many ops from `begin` on as a micro-batch has, those behind them numbered
// anew; empty where these are not one of every kind and stage.
Program without_round(const Program& program, size_t begin, size_t ops) {
  if (begin + ops > program.size()) return {};
  std::set<std::pair<int, OpKind>> seen;
  Program left(program.begin(), program.begin() + static_cast<std::ptrdiff_t>(begin));
  for (size_t i = begin; i < program.size(); ++i) {
    if (i >= begin + ops) {
      left.push_back(numbered(program[i], -1));
    } else if (!seen.emplace(program[i].stage, program[i].kind).second) {
      return {};
    }
  }
  return left;
}

bool is_without_a_micro_batch(const Schedule& fewer, const Schedule& more) {
  for (int micro_batch = 0; micro_batch < more.micro_batches; ++micro_batch) {
    bool same = true;
    for (size_t rank = 0; rank < more.ranks.size() && same; ++rank) {
      same = without(more.ranks[rank], micro_batch) == fewer.ranks[rank];
    }
    if (same) return true;
  }
  return false;
}

// Each rank leaves out the round that it begins at one moment of a step: what waits for an op has
// then begun no more often than that.
bool is_without_a_round(const Schedule& fewer, const Schedule& more) {
  const Simulation step = simulate(more, {});
  std::set<double> moments;
  for (const std::vector<OpTimes>& ops : step.ops) {
    for (const OpTimes& op : ops) moments.insert(op.start);
  }
  return std::any_of(moments.begin(), moments.end(), [&](double moment) {
    for (size_t rank = 0; rank < more.ranks.size(); ++rank) {
      const auto begin = std::find_if(step.ops[rank].begin(), step.ops[rank].end(),
                                      [&](const OpTimes& op) { return op.start >= moment - 1e-9; });
      const size_t ops = more.ranks[rank].size() - fewer.ranks[rank].size();
      const auto place = static_cast<size_t>(begin - step.ops[rank].begin());
      if (without_round(more.ranks[rank], place, ops) != fewer.ranks[rank]) return false;
    }
    return true;
  });
}

// So a step with one micro-batch more has all the waits of the one with less, and some more.
TEST(ScheduleGrowth, OneMicroBatchMoreAddsToTheOrderAndChangesNothingElse) {
  for (const std::string& name : built_schedules()) {
    for (int p = 1; p <= 8; ++p) {
      const auto from = schedule_grows_from(name, p);
      if (!from) continue;
      for (int v = fixed_chunks(name).value_or(1); v <= fixed_chunks(name).value_or(3); ++v) {
        for (int m = *from; m < *from + 8; ++m) {
          ScheduleRequest request{.name = name, .pipeline = p, .micro_batches = m, .chunks = v};
          const Schedule fewer = make_schedule(request);
          ++request.micro_batches;
          const Schedule more = make_schedule(request);
          EXPECT_TRUE(is_without_a_round(fewer, more) || is_without_a_micro_batch(fewer, more))
              << name << " p" << p << " v" << v << " m" << m;
        }
      }
    }
  }
}

TEST(ScheduleGrowth, AStepWithMoreTakesNoLessTimeAndMemory) {
  Costs costs{.stages = {}, .hop = 0.3, .transfer = 0.2};
  for (int s = 0; s < 24; ++s) costs.stages.push_back({1.0 + 0.3 * (s % 3), 1.4, 0.6 + 0.1 * s});
  for (const std::string& name : built_schedules()) {
    for (const int p : {2, 5}) {
      const auto from = schedule_grows_from(name, p);
      if (!from) continue;
      ScheduleRequest request{.name = name, .pipeline = p, .micro_batches = *from};
      costs.stages.resize(static_cast<size_t>(p * fixed_chunks(name).value_or(1)), {1, 2, 1});
      Simulation before = simulate(make_schedule(request), costs);
      for (int m = *from + 1; m < *from + 20; ++m) {
        request.micro_batches = m;
        const Simulation now = simulate(make_schedule(request), costs);
        EXPECT_GE(now.makespan, before.makespan) << name << " p" << p << " m" << m;
        for (size_t rank = 0; rank < now.peak_activations.size(); ++rank) {
          EXPECT_GE(now.peak_activations[rank], before.peak_activations[rank])
              << name << " p" << p << " m" << m;
        }
        before = now;
      }
    }
  }
}

// A last group must not be shorter than the pipeline, so 7 micro-batches on 4 ranks are one group,
// and 9 are one of 5 and one of 4.
TEST(ScheduleGrowth, WithGroupsNothingIsSaidOfOtherNumbers) {
  for (const char* name : {"interleaved", "interleaved-zb", "forward-only"}) {
    EXPECT_FALSE(schedule_grows_from(name, 4)) << name;
  }
  EXPECT_GT(least_peak_activations("interleaved", 4, 2, 7)[0],
            least_peak_activations("interleaved", 4, 2, 8)[0]);
}

}  // namespace
}  // namespace trireme
