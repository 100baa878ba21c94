#include "planner/cost/known_timings.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "planner/schedules/schedules.h"

namespace trireme {
namespace {

std::shared_ptr<const Schedule> built(const char* name) {
  return std::make_shared<const Schedule>(
      make_schedule({.name = name, .pipeline = 4, .micro_batches = 8}));
}

// Asked in ascending, descending and mixed order, also just beside the makespan, of two schedules
// and more costs than are remembered.
TEST(KnownTimings, AnswerAsIfNothingWereKnown) {
  KnownTimings known;
  const std::vector<std::shared_ptr<const Schedule>> schedules = {built("1f1b"), built("gpipe")};
  for (const double share : {0.5, 1 - 5e-10, 1 - 5e-11, 1.0, 2.0, 1.0, 1 - 5e-10, 0.7, 1.5, 0.99}) {
    for (const auto& schedule : schedules) {
      for (int hop = 0; hop < 12; ++hop) {
        const Costs costs{.hop = 0.1 * hop};
        const double most = share * makespan_of(*schedule, costs);
        const auto fresh = KnownTimings().within(schedule, costs, most);
        const auto answer = known.within(schedule, costs, most);
        ASSERT_EQ(answer.has_value(), fresh.has_value()) << share;
        EXPECT_EQ(answer.has_value(), share >= 1 - 1e-10);
        if (!answer) continue;
        EXPECT_EQ(answer->makespan, fresh->makespan);
        EXPECT_EQ(answer->last_gradient, fresh->last_gradient);
      }
    }
  }
}

TEST(KnownTimings, KeepNoSchedule) {
  KnownTimings known;
  auto schedule = built("1f1b");
  const std::weak_ptr<const Schedule> watched = schedule;
  known.within(schedule, {}, 100);
  schedule.reset();
  EXPECT_TRUE(watched.expired());
}

// A function of the ops' times cannot be compared with another.
TEST(KnownTimings, OfMeasuredOpsAreNotKept) {
  KnownTimings known;
  const auto schedule = built("1f1b");
  for (const double seconds : {1.0, 2.0}) {
    Costs costs;
    costs.op_time = [seconds](int, size_t) { return seconds; };
    // Eight micro-batches and three ranks before the last: 11 forwards and 11 backwards.
    EXPECT_EQ(known.within(schedule, costs, 100)->makespan, 22 * seconds);
  }
}

}  // namespace
}  // namespace trireme
