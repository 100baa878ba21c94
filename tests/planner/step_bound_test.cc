#include "planner/step_bound.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace trireme {
namespace {

// 10 + 2m is above 4 + 3m up to m = 6; 5 + 2m is nowhere the greatest.
StepBound two_lines() {
  StepBound bound;
  bound.add(5, 2);
  bound.add(4, 3);
  bound.add(10, 2);
  return bound;
}

TEST(StepBound, IsTheGreatestOfItsLines) {
  const StepBound bound = two_lines();
  EXPECT_EQ(bound.seconds(0), 10);
  EXPECT_EQ(bound.seconds(6), 22);
  EXPECT_EQ(bound.seconds(7), 25);
}

// Trips of 12 for every four, whether four set out on the last or fewer.
TEST(StepBound, IsARoundTripForEverySoMany) {
  StepBound bound = two_lines();
  bound.add_trips({.trip = 12, .in_flight = 4});
  EXPECT_EQ(bound.seconds(9), 36);   // three trips, 31 by the lines
  EXPECT_EQ(bound.seconds(12), 40);  // three trips, 40 by the lines
  bound.then(1);
  EXPECT_EQ(bound.seconds(9), 37);
  EXPECT_EQ(bound.seconds(12), 41);
}

// All four set out at once on the first trip, 2.5 after one another on the second and third.
TEST(StepBound, OnLaterTripsIsWhatLiesBetweenThoseThatSetOut) {
  StepBound bound;
  bound.add_trips({.trip = 12, .in_flight = 4, .between = 2.5});
  EXPECT_EQ(bound.seconds(1), 12);
  EXPECT_EQ(bound.seconds(4), 12);
  EXPECT_EQ(bound.seconds(5), 24);
  EXPECT_EQ(bound.seconds(8), 31.5);
  EXPECT_EQ(bound.seconds(9), 36);
  EXPECT_EQ(bound.seconds(11), 41);
}

// What may be done in time takes no longer, and one more does. What lies between is also 5, which
// counts as 3: else the fourth of a trip were later than the first of the next.
TEST(StepBound, CountsTheMicroBatchesThatMayBeDone) {
  for (const double between : {0.0, 2.5, 5.0}) {
    StepBound bound = two_lines();
    bound.add_trips({.trip = 12, .in_flight = 4, .between = between});
    bound.then(0.5);
    EXPECT_EQ(bound.micro_batches(0), 0);
    for (int quarters = 64; quarters < 400; ++quarters) {
      const double seconds = quarters / 4.0;
      const double most = bound.micro_batches(seconds);
      EXPECT_EQ(most, std::floor(most));
      EXPECT_LE(bound.seconds(most), seconds * (1 + 1e-6));
      EXPECT_GT(bound.seconds(most + 1), seconds) << seconds;
    }
  }
}

TEST(StepBound, WithoutWorkAnyNumberMayBeDoneInTime) {
  StepBound bound;
  bound.add(3, 0);
  EXPECT_EQ(bound.micro_batches(2), 0);
  EXPECT_EQ(bound.micro_batches(3), std::numeric_limits<double>::infinity());
}

}  // namespace
}  // namespace trireme
