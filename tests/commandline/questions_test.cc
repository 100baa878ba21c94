// Questions to a plan: --explain, --what-if, --sweep, --price, as their users see the answers.

#include <gmock/gmock.h>

#include <algorithm>
#include <sstream>

#include "tests/commandline/command.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using Json = nlohmann::json;

class Questions : public Command {
 protected:
  Answer ask(const std::string& question) const {
    return trireme("plan job.toml --cluster cluster.toml " + question);
  }
  Json json(const std::string& question) const {
    const Answer answer = ask(question + " --json");
    EXPECT_EQ(answer.status, 0) << answer.err;
    return answer.json();
  }
};

void expect_narrow(const std::string& text) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 100U) << line;
}

TEST_F(Questions, ThePlanSaysWhatItsDevicesHoldAndWhatLimitsIt) {
  const Answer answer = ask("");
  ASSERT_EQ(answer.status, 0) << answer.err;
  expect_narrow(answer.out);
  EXPECT_THAT(answer.out, AllOf(HasSubstr("\nBottleneck   "), HasSubstr("of  80.00 GB |"),
                                HasSubstr("inside a node: NVLink, 300 GB/s"),
                                HasSubstr("\nTimeline "), HasSubstr("what grew most")));
  EXPECT_EQ(answer.out.find('\x1b'), std::string::npos);  // no colours outside a terminal
  const Json plan = json("");
  EXPECT_EQ(plan["axes"].size(), 3U);
  EXPECT_THAT(plan["bottleneck"].get<std::string>(), HasSubstr("of the step"));
  const Json& memory = plan["memory"][0];
  EXPECT_EQ(memory["device_bytes"], 80e9);
  EXPECT_NEAR(memory["parameters"].get<double>() + memory["gradients"].get<double>() +
                  memory["optimizer"].get<double>() + memory["activations"].get<double>() +
                  memory["reserve"].get<double>(),
              plan["prediction"]["memory_bytes_per_pipeline_rank"][0].get<double>(), 1);
}

TEST_F(Questions, AnAlternativeOfThePlanTellsWhatItLosesBy) {
  const Json plan = json("--top 3");
  const double best = plan["prediction"]["step_seconds"];
  for (const Json& other : plan["alternatives"]) {
    double sum = 0;
    for (const auto& [cause, seconds] : other["changes"].items()) sum += seconds.get<double>();
    EXPECT_NEAR(sum, other["prediction"]["step_seconds"].get<double>() - best, 1e-9 * best);
  }
}

TEST_F(Questions, ExplainTellsEachOutcome) {
  const Answer answer = ask("--explain tensor=8,pipeline=1 --explain tensor=16 --explain data=3");
  ASSERT_EQ(answer.status, 0) << answer.err;
  expect_narrow(answer.out);
  EXPECT_THAT(
      answer.out,
      AllOf(HasSubstr("\nExplain      tensor=8,pipeline=1: slower\n"),
            HasSubstr("against the plan\n"), HasSubstr("\nExplain      tensor=16: impossible\n"),
            HasSubstr("which has 8 devices"), HasSubstr("\nExplain      data=3: impossible\n")));
  const Json explained = json("--explain tensor=8,pipeline=1 --explain tensor=16")["explanations"];
  ASSERT_EQ(explained.size(), 2U);
  EXPECT_EQ(explained[0]["standing"], "slower");
  EXPECT_EQ(explained[0]["layout"]["tensor"], 8);
  EXPECT_EQ(explained[1]["standing"], "impossible");
}

TEST_F(Questions, ExplainTellsWhatDoesNotFitByHowMuch) {
  replace("cluster.toml", "\"A100-SXM4-80GB\"", "{name = \"A100-SXM4-80GB\", memory_gb = 1.7}");
  const std::string asked = "--explain tensor=1,pipeline=1,optimizer_sharding=0,recompute=none";
  const Answer answer = ask(asked);
  ASSERT_EQ(answer.status, 0) << answer.err;
  expect_narrow(answer.out);
  EXPECT_THAT(answer.out, AllOf(HasSubstr("does not fit"), HasSubstr("pipeline rank 0 needs"),
                                HasSubstr("of 1.70 GB"), HasSubstr("too much"),
                                HasSubstr("with memory enough: ")));
  const Json miss = json(asked)["explanations"][0]["miss"];
  double sum = 0;
  for (const auto& [part, bytes] : miss["memory"].items()) sum += bytes.get<double>();
  EXPECT_NEAR(sum - 1.7e9, miss["missing_bytes"].get<double>(), 1);
}

// A program of A100's years runs on H100 as well; of a cluster of H100 a current one is assumed.
TEST_F(Questions, OtherHardwareRunsTheSameProgram) {
  const Json asked = json("--what-if device=H100-SXM-80GB");
  EXPECT_THAT(asked["notes"].dump(), HasSubstr("of one program"));
  replace("cluster.toml", "A100-SXM4-80GB", "H100-SXM-80GB");
  const double current = json("")["prediction"]["step_seconds"];
  EXPECT_GT(asked["what_if"][1]["prediction"]["step_seconds"], 1.01 * current);
  EXPECT_FALSE(json("--what-if memory_gb=60").contains("notes"));
}

TEST_F(Questions, WhatIfPlansBesideTheClusterAsItIs) {
  const Answer answer =
      ask("--what-if devices=4 --what-if device=H100-SXM-80GB,devices=2 "
          "--what-if memory_gb=0.1");
  ASSERT_EQ(answer.status, 0) << answer.err;
  expect_narrow(answer.out);
  EXPECT_THAT(answer.out, AllOf(HasSubstr("as it is"), HasSubstr("devices=4"),
                                HasSubstr("device=H100-SXM-80GB"), HasSubstr("\nstep "),
                                HasSubstr("no plan"), HasSubstr("memory_gb=0.1: no layout fits")));
  const Json plans = json("--what-if devices=4 --what-if memory_gb=0.1")["what_if"];
  ASSERT_EQ(plans.size(), 3U);
  EXPECT_EQ(plans[0]["name"], "as it is");
  EXPECT_EQ(plans[0]["layout"], json("")["layout"]);
  const Json& half = plans[1]["layout"];
  EXPECT_LE(half["tensor"].get<int>() * half["pipeline"].get<int>() * half["data"].get<int>(), 4);
  EXPECT_THAT(plans[2]["no_plan"].get<std::string>(), StartsWith("no layout fits the memory"));
}

TEST_F(Questions, SweepTabulatesAndPlots) {
  const Answer answer = ask("--sweep devices=1..9 --price 2 --svg sweep.svg");
  ASSERT_EQ(answer.status, 0) << answer.err;
  expect_narrow(answer.out);
  EXPECT_EQ(std::count(answer.out.begin(), answer.out.end(), '\n'), 1 + 4);  // 1, 2, 4, 8
  EXPECT_THAT(read("sweep.svg"), AllOf(StartsWith("<svg "), HasSubstr("tokens per second"),
                                       HasSubstr("cost per million tokens")));
  const Json sweep = json("--sweep devices=2,8")["sweep"];
  EXPECT_EQ(sweep["key"], "devices");
  ASSERT_EQ(sweep["points"].size(), 2U);
  EXPECT_EQ(sweep["points"][1]["layout"], json("")["layout"]);
  EXPECT_LT(sweep["points"][1]["prediction"]["step_seconds"],
            sweep["points"][0]["prediction"]["step_seconds"]);
}

// Eight devices at 2 an hour for 1e6 tokens at so many tokens a second.
TEST_F(Questions, APriceGivesTheCostOfTokens) {
  EXPECT_FALSE(json("").contains("cost_per_million_tokens"));
  const Json plan = json("--price 2 --pin tensor=2 --pin pipeline=2 --pin data=2");
  const double seconds = 1e6 / plan["prediction"]["tokens_per_second"].get<double>();
  EXPECT_NEAR(plan["cost_per_million_tokens"].get<double>(), 8 * 2.0 / 3600 * seconds,
              1e-9 * seconds);
  EXPECT_THAT(ask("--price 2").out, HasSubstr("\nCost         "));
  replace("cluster.toml", "devices = 8", "devices = 8\nprice_per_device_hour = 2");
  EXPECT_EQ(json("--pin tensor=2 --pin pipeline=2 --pin data=2")["cost_per_million_tokens"],
            plan["cost_per_million_tokens"]);
}

struct Refusal {
  const char* name;
  const char* question;
  int status;
  const char* message;
};

class QuestionMistakes : public Questions, public testing::WithParamInterface<Refusal> {};

TEST_P(QuestionMistakes, AreNamed) {
  const Answer answer = ask(GetParam().question);
  EXPECT_EQ(answer.status, GetParam().status);
  EXPECT_THAT(answer.err, HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    All, QuestionMistakes,
    testing::Values(
        Refusal{"ExplainOfNoPin", "--explain tensr=2", 2,
                "--explain tensr=2: --pin: found an unknown key \"tensr\""},
        Refusal{"WhatIfOfNoKey", "--what-if nic_gpbs=2", 2,
                "--what-if nic_gpbs=2: found an unknown key \"nic_gpbs\""},
        Refusal{"WhatIfOfNoValue", "--what-if devices=many", 2,
                "cluster.toml: nodes[0].devices: found \"many\", expected an integer"},
        Refusal{"SweepOfNoKey", "--sweep =1", 2, "found an unknown key \"\""},
        Refusal{"SweepWithoutValues", "--sweep devices", 2, "--sweep: found \"devices\""},
        Refusal{"SweepThatFalls", "--sweep devices=8..4", 2, "the lower one first"},
        Refusal{"SweepFromNothing", "--sweep devices=0..4", 2, "two numbers above 0"},
        Refusal{"SweepWithoutEnd", "--sweep devices=1..inf", 2, "two numbers above 0"},
        Refusal{"SweepOfHalfDevices", "--sweep devices=0.5..4", 2,
                "nodes[0].devices: found 0.5, expected an integer"},
        Refusal{"SweepTooLong", "--sweep nic_gbps=1e-300..1e300", 2, "expected at most 64"},
        Refusal{"SweepWhereNothingFits", "--sweep memory_gb=0.01,0.02", 3,
                "no layout fits in any of these cases"},
        Refusal{"PlotOfNothing", "--svg a.svg", 2, "--sweep"},
        Refusal{"WhatIfOfOneKeyTwice", "--what-if nic_gbps=400,nic_gbps=800", 2,
                "found nic_gbps twice, expected each key once"},
        Refusal{"SweepThatEndsOutOfRange", "--sweep nodes=1..10000000", 2, "--sweep nodes="},
        Refusal{"PriceOfNoNumber", "--price nan", 2, "--price: found nan, expected a number"},
        Refusal{"EmptySweep", "--sweep ''", 2, "--sweep: found an empty value"},
        Refusal{"NegativePrice", "--price=-1", 2, "--price"},
        Refusal{"TwoPrices", "--price 2 --sweep price_per_device_hour=1,5", 2,
                "--price contradicts a question about price_per_device_hour"},
        Refusal{"RefusalsOfASweep", "--sweep devices=2,4 --rejected", 2, "excludes"},
        Refusal{"TwoQuestionsAtOnce", "--sweep devices=2,4 --what-if devices=2", 2, "excludes"}),
    [](const auto& tested) { return std::string(tested.param.name); });

}  // namespace
}  // namespace trireme
