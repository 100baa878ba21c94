#include "planner/schedules/schedule_cache.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "planner/schedules/schedules.h"

namespace trireme {
namespace {

Layout layout(int micro_batches) {
  return {.pipeline = 2, .schedule = "1f1b", .micro_batches = micro_batches};
}

// Two ranks, a forward and a backward of each micro-batch: 4 m ops.
TEST(ScheduleCache, ForgetsWhatWasAskedForLongestAgo) {
  ScheduleCache cache(100);
  const auto first = cache.get(layout(10), {}), second = cache.get(layout(11), {});
  EXPECT_EQ(cache.ops(), 84u);
  EXPECT_EQ(cache.get(layout(10), {}), first);
  const auto third = cache.get(layout(12), {});
  EXPECT_EQ(cache.ops(), 88u);
  EXPECT_EQ(cache.get(layout(10), {}), first);
  EXPECT_NE(cache.get(layout(11), {}), second);
}

TEST(ScheduleCache, KeepsTheLastOneHoweverLong) {
  ScheduleCache cache(10);
  cache.get(layout(10), {});
  const auto last = cache.get(layout(20), {});
  EXPECT_EQ(cache.ops(), 80u);
  EXPECT_EQ(cache.get(layout(20), {}), last);
}

// Six schedules, of which it keeps two or three.
TEST(ScheduleCache, ServesThreadsThatAskForTheSameAndForOthers) {
  ScheduleCache cache(1000);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 300; ++i) {
        const int micro_batches = 100 + (i * (t + 1) + t) % 6;
        const auto schedule = cache.get(layout(micro_batches), {});
        if (schedule->micro_batches != micro_batches || cache.ops() > 1000 + 4 * 105) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_LE(cache.ops(), 1000u);
  EXPECT_GE(cache.ops(), 400u);
}

}  // namespace
}  // namespace trireme
