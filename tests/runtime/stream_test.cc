#include "runtime/train/stream.h"

#include <gtest/gtest.h>

namespace trireme::test {
namespace {

std::string text(const std::vector<Op>& ops) {
  return row_to_csv(ops);
}

// Two ranks, three micro-batches, rank 0: two in flight. Odd steps count from 3.
const char* const kRow = "0F0,0F1,0B0,0F2,0B1,0B2";

TEST(Stream, BetweenTwoStepsTheNextForwardsRunAmongTheLastBackwards) {
  const auto row = parse_csv_row(kRow, "row");
  EXPECT_EQ(text(step_of_stream(row, 3, 0, false, false)), "0F0,0F1,0B0,0F2,0B1,0F3,0B2,0F4");
  EXPECT_EQ(text(step_of_stream(row, 3, 1, true, false)), "0B3,0F5,0B4,0F0,0B5,0F1");
}

TEST(Stream, ADrainedStepRunsItsRowAndTheNextOneFillsAnew) {
  const auto row = parse_csv_row(kRow, "row");
  EXPECT_EQ(text(step_of_stream(row, 3, 0, false, true)), kRow);
  EXPECT_EQ(text(step_of_stream(row, 3, 2, true, true)), "0B0,0F2,0B1,0B2");
}

TEST(Stream, OneMicroBatchInFlightGoesBackAtOnce) {
  const auto row = parse_csv_row("1F0,1B0,1F1,1B1", "row");
  EXPECT_EQ(text(step_of_stream(row, 2, 0, false, false)), "1F0,1B0,1F1,1B1,1F2");
  EXPECT_EQ(text(step_of_stream(row, 2, 1, true, false)), "1B2,1F3,1B3,1F0");
}

}  // namespace
}  // namespace trireme::test
