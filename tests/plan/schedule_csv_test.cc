#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "planner/plan/schedule.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

using testing::ElementsAre;

std::string complaint(std::string_view text) {
  try {
    parse_schedule_csv(text, "s.csv");
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::bad_input);
    return e.what();
  }
  return "no complaint";
}

Op op(OpKind kind, int stage, int micro_batch) {
  return {kind, false, stage, micro_batch};
}

TEST(ScheduleCsv, ReadsWhatItWrites) {
  const std::string text = "0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n";
  const auto schedule = parse_schedule_csv(text, "s.csv");
  EXPECT_EQ(schedule.micro_batches, 2);
  EXPECT_EQ(schedule.pipeline(), 2);
  EXPECT_EQ(schedule.chunks(), 1);
  EXPECT_EQ(schedule.ranks[1][1], op(OpKind::backward, 1, 0));
  EXPECT_EQ(to_csv(schedule), text);
}

TEST(ScheduleCsv, LoopPlacementIsRecognized) {
  const auto schedule = parse_schedule_csv("0F0,2F0,2B0,0B0\n1F0,3F0,3B0,1B0\n", "s.csv");
  EXPECT_EQ(schedule.stages, loop_placement(2, 2));
}

TEST(ScheduleCsv, TheSecondChunkMayRunBackwards) {
  const auto schedule =
      parse_schedule_csv("0F0,3F0,3I0,3W0,0I0,0W0\n1F0,2F0,2I0,2W0,1I0,1W0\n", "s.csv");
  EXPECT_THAT(schedule.stages,
              ElementsAre(StagePlace{0, 0}, StagePlace{1, 0}, StagePlace{1, 1}, StagePlace{0, 1}));
  EXPECT_EQ(schedule.ranks[0][2], op(OpKind::backward_input, 3, 0));
  EXPECT_EQ(schedule.ranks[0][3], op(OpKind::backward_weight, 3, 0));
}

TEST(ScheduleCsv, OverlappedPairsKeepTheirBond) {
  const std::string text = "0F0,(0F1;0B0)OVERLAP_F_B,0B1\n";
  const auto schedule = parse_schedule_csv(text, "s.csv");
  ASSERT_EQ(schedule.ranks[0].size(), 4U);
  EXPECT_TRUE(schedule.ranks[0][1].overlaps_next);
  EXPECT_FALSE(schedule.ranks[0][2].overlaps_next);
  EXPECT_EQ(to_csv(schedule), text);
}

// Python's csv module ends lines with \r\n, quotes a lone empty cell, and the waits are empty
// cells.
TEST(ScheduleCsv, ReadsWhatPythonWrites) {
  const auto schedule =
      parse_schedule_csv("0F0,0F1,,,0B0,0B1\r\n,1F0,1B0,1F1,1B1,\"\"\r\n", "s.csv");
  EXPECT_EQ(to_csv(schedule), "0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n");
}

TEST(ScheduleCsv, SaysWhichCellIsWrong) {
  const auto wrong = [](const std::string& where, const std::string& cell) {
    return "s.csv:" + where + ": found \"" + cell +
           "\", expected stage, one of F B I W and micro-batch (up to 999999) as in 0F3, a pair as "
           "in "
           "(0F7;7B3)OVERLAP_F_B, or nothing";
  };
  EXPECT_EQ(complaint("0F0,0X0\n"), wrong("1: cell 2", "0X0"));
  EXPECT_EQ(complaint("0F0\n1F0,,1B\n"), wrong("2: cell 3", "1B"));
  for (const auto* cell : {"F0", "0F", "0f0", "-1F0", "0F-1", "0F0 0", "0F0x", "SEND_F0",
                           "1000000F0", "0F1000000", "99999999999999999999F0", "(0F0)OVERLAP_F_B",
                           "(0F0;)OVERLAP_F_B", "(0F0;0B0;0F1)OVERLAP_F_B", "(0F0;0B0)", "(",
                           ")OVERLAP_F_B", "((0F0;0B0)OVERLAP_F_B;0F1)OVERLAP_F_B"}) {
    EXPECT_EQ(complaint(cell), wrong("1: cell 1", cell));
  }
}

TEST(ScheduleCsv, RefusesCommunicationInPlainWords) {
  for (const char* cell : {"0SEND_F0", "1RECV_B12", "0UNSHARD", "2RESHARD", "0REDUCE_GRAD"}) {
    EXPECT_EQ(complaint(std::string("0F0,") + cell + "\n"),
              std::string("s.csv:1: cell 2: found \"") + cell +
                  "\", which is communication; expected PyTorch's format \"compute_only\", from "
                  "which sends, receives and gathered parameters follow");
  }
}

TEST(ScheduleCsv, ErrorsQuoteNothingThatATerminalActsOn) {
  EXPECT_THAT(complaint("0F0,\x1b[31m0F1\n"), testing::HasSubstr("found \"?[31m0F1\""));
  EXPECT_THAT(complaint(std::string(500, 'x')),
              testing::HasSubstr("found \"" + std::string(40, 'x') + "...\""));
}

// What spreadsheets and hands make of a table: a byte order mark, rows of different lengths,
// trailing commas, blanks, blank lines at the end, no newline at the end.
TEST(ScheduleCsv, ReadsWhatSpreadsheetsWrite) {
  const std::string clean = "0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n";
  for (const std::string& text :
       {"\xEF\xBB\xBF" + clean, clean + "\n\n\r\n",
        std::string("0F0, 0F1 ,0B0,\t0B1,,,\n,\"1F0\",1B0,1F1,,1B1,,,,,\n"),
        std::string("0F0,0F1,0B0,0B1\r\n1F0,1B0,1F1,1B1")}) {
    EXPECT_EQ(to_csv(parse_schedule_csv(text, "s.csv")), clean) << text;
  }
}

TEST(ScheduleCsv, SaysWhichStageIsMisplaced) {
  EXPECT_EQ(complaint(""),
            "s.csv: found no operation, expected a row of cells as in 0F0,0F1,0B0,0B1 for each "
            "pipeline rank");
  EXPECT_EQ(complaint("0F0\n0B0\n"),
            "s.csv:2: cell 1: found stage 0, which row 1 has, expected each stage in one row");
  EXPECT_EQ(complaint("0F0\n2F0\n"),
            "s.csv: stage 1 is in no row, but stage 2 is; stages are numbered from 0 without gaps");
  EXPECT_EQ(complaint("0F0,1F0\n2F0\n"),
            "s.csv:2: found 1 stages in this row and 2 in row 1, expected as many in every row");
  EXPECT_EQ(complaint("0F0\n\n1F0\n"),
            "s.csv:2: found 0 stages in this row and 1 in row 1, expected as many in every row");
}

TEST(ScheduleCsv, EveryOpSurvivesAsAWord) {
  for (const auto kind :
       {OpKind::forward, OpKind::backward, OpKind::backward_input, OpKind::backward_weight}) {
    for (const int stage : {0, 1, 9, 10, 999'999}) {
      for (const int micro_batch : {0, 7, 123, 999'999}) {
        const std::vector<Op> row = {op(kind, stage, micro_batch)};
        EXPECT_EQ(parse_csv_row(row_to_csv(row), "row"), row);
      }
    }
  }
}

}  // namespace
}  // namespace trireme
