#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <random>

#include "planner/plan/plan.h"
#include "planner/plan/plan_check.h"
#include "tests/plan/random_plan.h"
#include "topology/base/error.h"
#include "topology/base/toml_reader.h"
#include "topology/base/toml_writer.h"

namespace trireme {
namespace {

// The text between the first ```toml and ``` of the format page.
std::string example_of_format_page() {
  const auto page = read_text_file(TRIREME_SOURCE_DIR "/planner/plan/FORMAT.md");
  const auto begin = page.find("```toml\n") + 8;
  return page.substr(begin, page.find("```", begin) - begin);
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const auto at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

std::string complaint(const std::string& text) {
  try {
    parse_plan(text, "p.toml");
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::bad_input);
    return e.what();
  }
  return "no complaint";
}

// A plan with shares; what is wrong with it once `spoil` has been at it.
template <class Spoil>
std::string fault_of_shares(Spoil spoil) {
  std::mt19937_64 random(3);
  Plan plan = random_plan(random);
  while (plan.layout.shares.empty()) plan = random_plan(random);
  EXPECT_FALSE(find_fault(plan));
  spoil(plan);
  const auto fault = find_fault(plan);
  return fault ? fault->found_and_expected : "nothing";
}

TEST(PlanFile, SharesThatDoNotFitEachOtherAreRefused) {
  const auto with_times = [](size_t shares, size_t more_stages) {
    return [=](Plan& plan) {
      plan.prediction.other_shares.resize(shares);
      plan.prediction.other_shares.back().stages.resize(plan.stages.size() + more_stages);
    };
  };
  EXPECT_EQ(fault_of_shares(with_times(1, 0)), "nothing");
  EXPECT_THAT(fault_of_shares(with_times(1, 1)), ::testing::HasSubstr("found figures of"));
  EXPECT_EQ(fault_of_shares(with_times(2, 0)), "found 2 other_shares, expected 1");
  EXPECT_THAT(fault_of_shares([](Plan& plan) { plan.job.training.reduction = std::nullopt; }),
              ::testing::HasSubstr("without reduction = \"fast\""));
}

TEST(PlanFile, RandomPlansReadBackEqual) {
  std::mt19937_64 random(20240229);
  for (int i = 0; i < 300; ++i) {
    const auto plan = random_plan(random);
    const auto text = to_toml(plan);
    const auto again = parse_plan(text, "/p.toml");
    ASSERT_EQ(again, plan) << text;
    ASSERT_EQ(to_toml(again), text);
  }
}

// Equality takes -0 for 0, so doubles are compared by their bits here.
TEST(PlanFile, EveryDoubleKeepsItsBits) {
  std::mt19937_64 random(7);
  std::vector<double> values = {0.0,
                                -0.0,
                                1.0,
                                -1.0,
                                0.1,
                                5e-324,
                                2.2250738585072014e-308,
                                1.7976931348623157e308,
                                9007199254740993.0,
                                1e22,
                                1e23,
                                1.0 / 3.0};
  while (values.size() < 20000) {
    const auto value = std::bit_cast<double>(random());
    if (std::isfinite(value)) values.push_back(value);
  }
  std::string text = "x = [";
  for (const double value : values) text += toml_number(value) + ",";
  const auto file = TomlFile::parse(text + "]", "x.toml");
  const auto again = file.root().numbers("x");
  ASSERT_EQ(again.size(), values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    ASSERT_EQ(std::bit_cast<uint64_t>(again[i]), std::bit_cast<uint64_t>(values[i])) << values[i];
  }
}

TEST(PlanFile, IsToldFromAJobFileByItsFirstLine) {
  std::mt19937_64 random(1);
  EXPECT_TRUE(is_plan_file(to_toml(random_plan(random))));
  EXPECT_TRUE(is_plan_file(example_of_format_page()));
  EXPECT_FALSE(is_plan_file(to_toml(random_plan(random).job)));
  EXPECT_FALSE(is_plan_file(""));
}

TEST(PlanFile, TheExampleOfTheFormatPageIsAPlan) {
  const auto plan = parse_plan(example_of_format_page(), "FORMAT.md");
  EXPECT_EQ(plan.layout.pipeline, 2);
  EXPECT_EQ(plan.stages[1], (Stage{1, 0, 2, 2, false, true}));
  EXPECT_EQ(plan.prediction.breakdown[1].first, "bubble");
  EXPECT_EQ(row_to_csv(plan.schedule.ranks[1]), "1F0,1B0,1F1,1B1");
  EXPECT_EQ(rank_name(plan, Rank(1)), "r1 d0p1t0 localhost:1");
  EXPECT_EQ(parse_plan(to_toml(plan), "again"), plan);
}

// Each sentence of the format page's list of refusals, and some slips in single values.
TEST(PlanFile, PartsThatDoNotGoTogetherAreNamed) {
  const auto good = example_of_format_page();
  EXPECT_EQ(complaint(good), "no complaint");
  const auto wrong = [&](const std::string& from, const std::string& to) {
    return complaint(replaced(good, from, to));
  };
  EXPECT_EQ(
      wrong("trireme-plan-1", "trireme-plan-2"),
      "p.toml:1:10: format: found \"trireme-plan-2\", expected one of trireme-plan-1 (did you mean "
      "\"trireme-plan-1\"?)");
  EXPECT_EQ(wrong("  \"localhost:0\", \"localhost:1\",", "  \"localhost:0\","),
            "p.toml:12:13: placement: found 1 ranks, expected 2 (tensor x pipeline x data)");
  EXPECT_EQ(wrong("localhost:1", "localhost:0"),
            "p.toml:12:13: placement: found localhost:0 twice, expected one rank for each device");
  EXPECT_EQ(wrong("localhost:1", "localhost"),
            "p.toml:12:13: placement: found \"localhost\" for rank 1, expected node:device as in "
            "\"gpu07:4\"");
  EXPECT_EQ(wrong("global_batch = 8", "global_batch = 9"),
            "p.toml:16:1: layout: found 2 micro-batches of 4 samples on 1 replicas, expected 9 "
            "samples in all");
  EXPECT_EQ(
      wrong("hop_seconds = ", "hop_seconds = -"),
      "p.toml:52:15: prediction.hop_seconds: found -3.e-05, expected a number from 0 to 1e+30");
  const auto shares = [&](const std::string& list) {
    return wrong("data = 1\n", "data = 1\nshares = [" + list + "]\n");
  };
  EXPECT_EQ(shares("{replicas = 2, micro_batches = 2}"),
            "p.toml:16:1: layout: found shares of 2 replicas, expected 1");
  EXPECT_EQ(shares("{replicas = 1, micro_batches = 1}"),
            "p.toml:16:1: layout: found micro_batches = 2, expected 1 as in the first share");
  const auto two = [&](const std::string& first, const std::string& second) {
    return replaced(replaced(good, "data = 1\n",
                             "data = 2\nshares = [{replicas = 1, micro_batches = " + first +
                                 "}, {replicas = 1, micro_batches = " + second + "}]\n"),
                    "global_batch = 8", "global_batch = 12");
  };
  EXPECT_EQ(complaint(two("2", "3")),
            "p.toml:16:1: layout: found 20 samples in all shares, expected 12");
  EXPECT_THAT(complaint(two("2", "1")),
              ::testing::HasSubstr("found shares without reduction = \"fast\""));
  EXPECT_THAT(complaint(replaced(two("2", "1"), "global_batch = 12",
                                 "global_batch = 12\nreduction = \"fast\"")),
              ::testing::HasSubstr("found 0, expected one for each share but the first"));
  const auto other_shares = [&](const std::string& stages) {
    return wrong("[schedule]", "[[prediction.other_shares]]\nstages = " + stages +
                                   "\ntransfer_seconds = 0.0\nhop_seconds = 0.0\n[schedule]");
  };
  EXPECT_THAT(other_shares("[]"),
              ::testing::HasSubstr("prediction: found 1 other_shares, expected 0"));
  EXPECT_EQ(wrong("data = 1", "data = 1048576"),
            "p.toml:16:1: layout: found 1 x 2 x 1048576 ranks, expected at most 1048576");
  EXPECT_EQ(wrong("chunks = 1", "chunks = 2"),
            "p.toml:6:10: stages: found 2 stages, expected 4 (pipeline x chunks)");
  EXPECT_EQ(wrong("pipeline_rank = 1", "pipeline_rank = 0"),
            "p.toml:6:10: stages: found stage 1 as chunk 0 of pipeline rank 0, expected each of 1 "
            "x 2 once");
  EXPECT_EQ(wrong("first_layer = 2", "first_layer = 3"),
            "p.toml:6:10: stages: found first_layer 3 in stage 1, expected 2, where the stage "
            "before ends");
  EXPECT_EQ(wrong("layers = 2, embedding = false", "layers = 1, embedding = false"),
            "p.toml:6:10: stages: found 3 layers in all stages, expected 4");
  EXPECT_EQ(wrong("layers = 2, embedding = false", "layers = 3, embedding = false"),
            "p.toml:6:10: stages: found layers up to 5 in stage 1, expected 4 layers in all");
  EXPECT_EQ(wrong("embedding = false", "embedding = true"),
            "p.toml:6:10: stages: found stage 1 with embedding = true and head = true, expected "
            "false and true");
  EXPECT_EQ(wrong("\"1F0,1B0,1F1,1B1\"", "\"1F0,0B0\""),
            "p.toml:55:1: schedule: found 0B0 in row 2, where stage 0 does not live");
  EXPECT_EQ(wrong("\"1F0,1B0,1F1,1B1\"", "\"1F2\""),
            "p.toml:55:1: schedule: found 1F2 in row 2, expected micro-batches below 2");
  EXPECT_EQ(wrong("  \"1F0,1B0,1F1,1B1\",\n", ""),
            "p.toml:55:1: schedule: found 1 rows, expected 2, one for each pipeline rank");
  EXPECT_EQ(wrong("1B1", "1Q1"),
            "p.toml:58:8: schedule.rows: row 2: cell 4: found \"1Q1\", expected stage, one of F B "
            "I W and micro-batch (up to 999999) as "
            "in 0F3, a pair as in (0F7;7B3)OVERLAP_F_B, or nothing");
  EXPECT_EQ(wrong("[10485760.0, 9437184.0]", "[1]"),
            "p.toml:28:1: prediction: found memory for 1 pipeline ranks, expected 2");
  EXPECT_EQ(wrong("{forward_seconds = 0.02, input_seconds = 0.02, weight_seconds = 0.02, "
                  "activation_bytes = 1048576.0},\n",
                  ""),
            "p.toml:28:1: prediction: found figures of 1 stages, expected 2");
  EXPECT_EQ(wrong("mfu = 0.1\n", ""),
            "p.toml:28:1: prediction.mfu: missing, expected a finite number");
  EXPECT_EQ(wrong("steps = 10", "step = 10"),
            "p.toml:75:1: job.training.steps: missing, expected an integer from 1 to 1073741824; "
            "found \"step\": did you mean \"steps\"?");
}

}  // namespace
}  // namespace trireme
