// `trireme schedule`, as its users see it.

#include <gmock/gmock.h>

#include "tests/commandline/command.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using Json = nlohmann::json;

class ScheduleCommand : public Command {};

const char* const kDeadlock = "0F0,0B0,0F1,0B1\n1F1,1B1,1F0,1B0\n";

// 1F1B at unit cost: (m+p-1)(F+B) = 5*3; each rank works 4*3 and idles 3 of 15.
TEST_F(ScheduleCommand, JsonKeepsItsContract) {
  const Answer answer = trireme("schedule 1f1b --pipeline 2 --microbatches 4 --json");
  ASSERT_EQ(answer.status, 0) << answer.err;
  const Json json = answer.json();
  EXPECT_EQ(json["legal"], true);
  EXPECT_EQ(json["makespan"], 15);
  EXPECT_EQ(json["span"], 15);
  EXPECT_DOUBLE_EQ(json["bubble_fraction"], 0.2);
  EXPECT_EQ(json["idle"], Json({3, 3}));
  EXPECT_EQ(json["peak_activations"], Json({2, 1}));
  EXPECT_EQ(json["tail_slack"], Json::parse("[[0], [2]]"));  // rank 1 ends a backward earlier
  EXPECT_EQ(json["messages"], 8);
  EXPECT_EQ(json["stages"], Json::parse("[[0, 0], [1, 0]]"));
  EXPECT_EQ(json["peak_memory"], Json({2, 1}));
  for (const Json& causes : json["idle_by_cause"]) {
    double sum = 0;
    for (const auto& [cause, time] : causes.items()) sum += time.get<double>();
    EXPECT_DOUBLE_EQ(sum, 3);
  }
}

// The digest is what sha256sum says of the CSV.
TEST_F(ScheduleCommand, TheDigestIsThatOfTheCsv) {
  write("mine.csv", "0F0,0B0\n1F0,1B0\n");
  const Answer answer = trireme("schedule --file mine.csv --json");
  ASSERT_EQ(answer.status, 0) << answer.err;
  EXPECT_EQ(answer.json()["digest"],
            "sha256:01678246a155b34c8a92dd5b23186ffc6652e58b5d1bd5b19e8b90ecd7329f3f");
}

TEST_F(ScheduleCommand, CsvComesBackAsTheSameSchedule) {
  for (const char* name : {"1f1b", "zb-v", "dualpipe-v", "forward-only"}) {
    const std::string sizes = " --pipeline 4 --microbatches 8 ";
    const Answer made = trireme("schedule " + std::string(name) + sizes + "--format csv");
    ASSERT_EQ(made.status, 0) << made.err;
    write("made.csv", made.out);
    const Answer again = trireme("schedule --file made.csv --format csv");
    EXPECT_EQ(again.out, made.out);
    Json built = trireme("schedule " + std::string(name) + sizes + "--json").json();
    Json read = trireme("schedule --file made.csv --json").json();
    built.erase("name");
    read.erase("name");
    EXPECT_EQ(read, built) << name;
  }
}

TEST_F(ScheduleCommand, StageCostsMayHaveAHeadingAndMemory) {
  // Two stages, one micro-batch: 1 + 10 + (20 + 30) + (2 + 3) and nothing overlaps.
  write("costs.csv", "1,2,3\n10,20,30\n");
  write("headed.csv", "w,i,f,kept,activation\n3,2,1,1,4\n30,20,10,1,7\n");
  for (const char* file : {"costs.csv", "headed.csv"}) {
    const Answer answer = trireme(
        "schedule gpipe --pipeline 2 --microbatches 1 --json --stage-costs " + std::string(file));
    ASSERT_EQ(answer.status, 0) << answer.err;
    EXPECT_EQ(answer.json()["makespan"], 66);
  }
  const Answer answer =
      trireme("schedule gpipe --pipeline 2 --microbatches 2 --json --stage-costs headed.csv");
  EXPECT_EQ(answer.json()["peak_memory"], Json({8, 14}));
}

// Without --chunks a V has two, and as many stage costs as there are stages tell it too.
TEST_F(ScheduleCommand, ChunksFollowFromTheSchedule) {
  EXPECT_EQ(trireme("schedule zb-v --pipeline 2 --microbatches 4 --json").json()["stages"].size(),
            4U);
  write("costs.csv", "1,1,1\n1,1,1\n1,1,1\n1,1,1\n1,1,1\n1,1,1\n");
  EXPECT_EQ(trireme("schedule interleaved --pipeline 2 --microbatches 4 --json --stage-costs "
                    "costs.csv")
                .json()["stages"]
                .size(),
            6U);
}

TEST_F(ScheduleCommand, AnExceededMemoryLimitIsNotLegal) {
  const std::string schedule = "schedule 1f1b --pipeline 4 --microbatches 8 ";
  EXPECT_EQ(trireme(schedule + "--memory-limit 4").status, 0);
  EXPECT_EQ(trireme(schedule + "--memory-limit 4,3,2,1").status, 0);
  const Answer all = trireme(schedule + "--memory-limit 3 --json");
  EXPECT_EQ(all.status, 1);
  EXPECT_EQ(all.json()["legal"], false);
  EXPECT_EQ(all.json()["reason"], "rank 0 holds 4 chunk activations, above the limit of 3");
  const Answer third = trireme(schedule + "--memory-limit 4,3,1,1");
  EXPECT_EQ(third.status, 1);
  EXPECT_EQ(third.err, "trireme: rank 2 holds 2 chunk activations, above the limit of 1\n");
  EXPECT_EQ(trireme(schedule + "--memory-limit 4,3").status, 2);
}

TEST_F(ScheduleCommand, AWaitInACircleIsDrawn) {
  write("dead.csv", kDeadlock);
  const Answer answer = trireme("schedule --file dead.csv");
  EXPECT_EQ(answer.status, 1);
  EXPECT_EQ(answer.out, "");
  EXPECT_THAT(answer.err, AllOf(HasSubstr("not a legal schedule: 2 ranks wait for each other"),
                                HasSubstr("!0B0!"), HasSubstr("waits for 0F1 of rank 0")));
  const Json json = trireme("schedule --file dead.csv --json").json();
  EXPECT_EQ(json["legal"], false);
  EXPECT_THAT(json["grid"].get<std::string>(), HasSubstr("[1F1]"));
  EXPECT_EQ(json["first_wrong"]["rank"], 0);
}

TEST_F(ScheduleCommand, MissingOpsAreListedByRank) {
  write("holes.csv", "0F0,0F1,0B0,0B1\n1F0,1B0,1B1\n");
  const Answer answer = trireme("schedule --file holes.csv --missing");
  EXPECT_EQ(answer.status, 1);
  EXPECT_EQ(answer.out, "rank   1 lacks 1F1\n");
  EXPECT_EQ(trireme("schedule --file holes.csv --json").json()["missing"], Json({"1F1"}));
  // Asked for three micro-batches, all of the third is missing as well.
  const Json json = trireme("schedule --file holes.csv --microbatches 3 --json").json();
  EXPECT_EQ(json["missing"], Json({"0F2", "0B2", "1F1", "1F2", "1B2"}));
}

TEST_F(ScheduleCommand, BlockingSendsAreProvenOnRequest) {
  const std::string schedule = "schedule 1f1b --pipeline 4 --microbatches 8 --sends ";
  EXPECT_EQ(trireme(schedule + "batched").status, 0);
  const Answer blocking = trireme(schedule + "blocking");
  EXPECT_EQ(blocking.status, 1);
  EXPECT_THAT(blocking.err, HasSubstr("ranks wait for each other"));
}

// At equal work per rank: 1f1b (8+3)*3 = 33, interleaved (16+3)*3/2 = 28.5; and 4 or
// (2*3 + 4 + 1)/2 = 5.5 micro-batches held.
TEST_F(ScheduleCommand, ComparesAtEqualWork) {
  const Answer answer = trireme(
      "schedule --compare 1f1b,interleaved --pipeline 4 --microbatches 8 --chunks 2 --json");
  ASSERT_EQ(answer.status, 0) << answer.err;
  const Json json = answer.json();
  ASSERT_EQ(json.size(), 2U);
  EXPECT_EQ(json[0]["name"], "1f1b");
  EXPECT_EQ(json[0]["makespan"], 33);
  EXPECT_EQ(json[1]["makespan"], 28.5);
  EXPECT_EQ(json[0]["peak_memory"][0], 4);
  EXPECT_EQ(json[1]["peak_memory"][0], 5.5);
}

TEST_F(ScheduleCommand, ComparesWithAFileAndTellsWhatCannotBe) {
  write("mine.csv", trireme("schedule gpipe --pipeline 4 --microbatches 4 --format csv").out);
  const Answer answer =
      trireme("schedule --compare 1f1b,mine.csv,dualpipe-v --pipeline 4 --microbatches 4");
  EXPECT_EQ(answer.status, 1);
  EXPECT_THAT(answer.out, AllOf(HasSubstr("\nmine.csv                21"),
                                HasSubstr("need 8 micro-batches or more, found 4")));
  const Answer svg =
      trireme("schedule --compare 1f1b,mine.csv --pipeline 4 --microbatches 4 --format svg");
  EXPECT_EQ(svg.status, 0);
  EXPECT_THAT(svg.out, AllOf(StartsWith("<svg "), HasSubstr(">mine.csv</text>")));
}

// `script` gives the command a terminal; what it shows goes to its own stdout.
TEST_F(ScheduleCommand, ColoursAreForTerminals) {
  const std::string schedule = "schedule 1f1b --pipeline 2 --microbatches 2";
  const auto on_terminal = [&](const std::string& environment) {
    const std::string command = "cd " + directory_ + " && " + environment +
                                " TERM=xterm script -qec '" + TRIREME_BINARY_DIR + "/trireme " +
                                schedule + "' /dev/null > shown.txt < /dev/null";
    EXPECT_EQ(std::system(command.c_str()), 0);
    return read("shown.txt");
  };
  EXPECT_THAT(trireme(schedule).out, Not(HasSubstr("\x1b")));
  EXPECT_THAT(on_terminal("NO_COLOR="), HasSubstr("\x1b[30;48;5;117m0"));
  EXPECT_THAT(on_terminal("NO_COLOR=1"), Not(HasSubstr("\x1b")));
}

// A run of two ranks whose ops take 1 and 2 seconds, as their traces tell it.
class ScheduleOfARun : public Command {
 protected:
  void SetUp() override {
    Command::SetUp();
    ASSERT_EQ(trireme("plan job.toml --cluster cluster.toml -o run-plan.toml --pin tensor=1 --pin "
                      "pipeline=2 --pin data=1 --pin schedule=gpipe --pin micro_batch=16")
                  .status,
              0);
    ASSERT_EQ(std::system(("cd " + directory_ +
                           " && mkdir -p run/trace && cp run-plan.toml "
                           "run/plan.toml")
                              .c_str()),
              0);
    write("run/trace/rank-00000.json", "[" + op("0F0", 100, 1) + op("0F1", 101, 1) +
                                           op("0B0", 105, 2) + op("0B1", 109, 2) +
                                           "{\"ph\":\"M\"}]");
    write("run/trace/rank-00001.json", "[" + op("1F0", 101, 1) + op("1F1", 102, 1) +
                                           op("1B0", 103, 2) + op("1B1", 105, 2) +
                                           "{\"ph\":\"M\"}]");
  }

  static std::string op(const std::string& name, int start, int duration) {
    return "{\"ph\":\"X\",\"cat\":\"op\",\"name\":\"" + name +
           "\",\"ts\":" + std::to_string(start) + "000000,\"dur\":" + std::to_string(duration) +
           "000000,\"args\":{\"step\":7}},\n";
  }
};

// Measured from 100 to 111, each rank busy for 6 of 11. Without the two seconds that rank 0 waited
// for the last gradient it would have been 3 forwards and 3 backwards long: 9.
TEST_F(ScheduleOfARun, IsHeldAgainstThePrediction) {
  const Answer answer = trireme("schedule --from-trace run --json");
  ASSERT_EQ(answer.status, 0) << answer.err;
  const Json json = answer.json();
  EXPECT_EQ(json["step"], 7);
  EXPECT_NEAR(json["measured"]["makespan_seconds"], 11, 1e-6);
  EXPECT_NEAR(json["measured"]["bubble_fraction"], 5.0 / 11, 1e-6);
  EXPECT_NEAR(json["simulated"]["makespan_seconds"], 9, 1e-6);
  EXPECT_GT(json["predicted"]["makespan_seconds"].get<double>(), 0);
  EXPECT_THAT(trireme("schedule --from-trace run").out, HasSubstr("gpipe, step 7, measured: "));
  EXPECT_THAT(trireme("schedule --from-trace run --format svg").out,
              HasSubstr(">gpipe, step 7, measured</text>"));
}

TEST_F(ScheduleOfARun, MustBeTheRunOfItsPlan) {
  EXPECT_THAT(trireme("schedule --from-trace run --step 3").err, HasSubstr("--step: found 3"));
  write("run/trace/rank-00001.json", "[" + op("1F1", 101, 1) + "{}]");
  const Answer swapped = trireme("schedule --from-trace run");
  EXPECT_EQ(swapped.status, 2);
  EXPECT_THAT(swapped.err,
              HasSubstr("rank-00001.json: step 7: found op 1F1 at position 0, expected 1F0"));
  write("run/trace/rank-00001.json", "[{");
  EXPECT_EQ(trireme("schedule --from-trace run").status, 2);
  EXPECT_THAT(trireme("schedule --from-trace none").err,
              HasSubstr("none/plan.toml: cannot be read"));
}

struct Mistake {
  const char* name;
  const char* arguments;
  const char* message;
};

class ScheduleMistakes : public Command, public testing::WithParamInterface<Mistake> {};

TEST_P(ScheduleMistakes, AreNamed) {
  write("cells.csv", "0F0,0B0\n1F0,1X0\n");
  write("empty.csv", "");
  write("words.csv", "f,i,w\n1,1,1\n1,one,1\n");
  write("columns.csv", "f,b,w\n1,1,1\n");
  write("short.csv", "1,1,1\n1,1\n");
  write("kept.csv", "1,1,1,2,3\n1,1,1,2,2\n");
  const Answer answer = trireme(std::string("schedule ") + GetParam().arguments);
  EXPECT_EQ(answer.status, 2);
  EXPECT_EQ(answer.out, "");
  EXPECT_THAT(answer.err, HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    All, ScheduleMistakes,
    testing::Values(
        Mistake{"Nothing", "", "expected one of NAME, --file, --compare and --from-trace"},
        Mistake{"TwoQuestions", "1f1b --file cells.csv", "expected one of NAME"},
        Mistake{"NoSizes", "1f1b", "expected --pipeline and --microbatches"},
        Mistake{"ZeroRanks", "1f1b --pipeline 0 --microbatches 4", "--pipeline"},
        Mistake{"NoSuchName", "2f2b --pipeline 2 --microbatches 2",
                "no schedule is called \"2f2b\""},
        Mistake{"TooLarge", "gpipe --pipeline 100000 --microbatches 100000",
                "more than the limit of 50 million"},
        Mistake{"SizesOutsideTheRule", "dualpipe-v --pipeline 4 --microbatches 4",
                "need 8 micro-batches or more, found 4"},
        Mistake{"NoFile", "--file none.csv", "none.csv: cannot be read"},
        Mistake{"WrongCell", "--file cells.csv", "cells.csv:2: cell 2: found \"1X0\", expected"},
        Mistake{"EmptyFile", "--file empty.csv", "empty.csv: found no operation"},
        Mistake{"OtherRanks", "--file empty.csv --pipeline x", "--pipeline"},
        Mistake{"CostOfNothing", "1f1b --pipeline 2 --microbatches 2 --costs g=1",
                "--costs: found \"g=1\", expected f=, i=, w="},
        Mistake{"CostOfLetters", "1f1b --pipeline 2 --microbatches 2 --costs f=one",
                "--costs f: found \"one\", expected a number"},
        Mistake{"CostTwice", "1f1b --pipeline 2 --microbatches 2 --costs f=1,f=2",
                "--costs: found f twice, expected each key once"},
        Mistake{"GroupOfAFile", "--file cells.csv --group 2", "--group is of built schedules"},
        Mistake{"TwoFormats", "1f1b --pipeline 2 --microbatches 2 --format csv --json",
                "--format excludes --json"},
        Mistake{"OverlapAboveOne", "1f1b --pipeline 2 --microbatches 2 --costs overlap=1.5",
                "--costs overlap: found 1.5, expected a share from 0 to 1"},
        Mistake{"StageCostOfLetters", "1f1b --pipeline 2 --microbatches 2 --stage-costs words.csv",
                "words.csv:3: cell 2: found \"one\""},
        Mistake{"StageCostColumn", "1f1b --pipeline 2 --microbatches 2 --stage-costs columns.csv",
                "columns.csv:1: found columns f,b,w"},
        Mistake{"StageCostCells", "1f1b --pipeline 2 --microbatches 2 --stage-costs short.csv",
                "short.csv:2: found 2 cells, expected 3"},
        Mistake{"StageCostRows", "1f1b --pipeline 3 --microbatches 3 --stage-costs words.csv",
                "words.csv:3"},
        Mistake{"MoreKeptThanHeld", "1f1b --pipeline 2 --microbatches 2 --stage-costs kept.csv",
                "kept.csv:1: found kept 3, expected at most the activation, 2"},
        Mistake{"LimitOfLetters", "1f1b --pipeline 2 --microbatches 2 --memory-limit many",
                "--memory-limit: found \"many\""},
        Mistake{"UnknownSends", "1f1b --pipeline 2 --microbatches 2 --sends later", "--sends"},
        Mistake{"UnknownFormat", "1f1b --pipeline 2 --microbatches 2 --format png", "--format"},
        Mistake{"CsvOfSeveral", "--compare 1f1b,gpipe --pipeline 2 --microbatches 2 --format csv",
                "a CSV holds one schedule"},
        Mistake{"CostsOfSeveral", "--compare 1f1b,gpipe --pipeline 2 --microbatches 2 --costs junk",
                "--costs: found \"junk\""},
        Mistake{"StageCostsOfSeveral",
                "--compare 1f1b,gpipe --pipeline 2 --microbatches 2 --stage-costs none.csv",
                "none.csv: cannot be read"},
        Mistake{"LimitsOfSeveral",
                "--compare 1f1b,gpipe --pipeline 3 --microbatches 2 --memory-limit 1,2",
                "--memory-limit: found 2 numbers, expected one or 3"},
        Mistake{"NoSizesOfSeveral", "--compare 1f1b,gpipe", "expected --pipeline"},
        Mistake{"StepOfNoTrace", "1f1b --pipeline 2 --microbatches 2 --step 3", "--from-trace"},
        Mistake{"SizesOfATrace", "--from-trace run --pipeline 2", "--pipeline excludes"},
        Mistake{"CompareWithNothing", "--compare 1f1b,2f2b --pipeline 2 --microbatches 2",
                "no schedule is called \"2f2b\""}),
    [](const testing::TestParamInfo<Mistake>& tested) { return std::string(tested.param.name); });

// Rank 1 has 6 * (2 + 2 + 2) to do and waits for a forward of 1: 37, which is met.
TEST_F(ScheduleCommand, AutoTellsWhereItsScheduleComesFromAndHowGoodItIs) {
  write("stages.csv", "1,1,1\n2,2,2\n");
  const Answer answer =
      trireme("schedule auto --pipeline 2 --microbatches 6 --stage-costs stages.csv --json");
  ASSERT_EQ(answer.status, 0) << answer.err;
  const Json json = answer.json();
  EXPECT_EQ(json["name"], "auto");
  EXPECT_EQ(json["makespan"], 37);
  EXPECT_EQ(json["lower_bound"], 37);
  EXPECT_EQ(json["gap"], 0);
  EXPECT_FALSE(json["origin"].get<std::string>().empty());
  int timed = 0;
  for (const Json& one : json["considered"]) {
    EXPECT_NE(one.contains("makespan"), one.contains("why_not")) << one;
    if (!one.contains("makespan")) continue;
    EXPECT_GE(one["makespan"], 37);
    ++timed;
  }
  EXPECT_GT(timed, 5);
}

// In units of the activation column: rank 0 holds 4 for a micro-batch until its I.
TEST_F(ScheduleCommand, AutoKeepsALimitInTheUnitOfTheStageCosts) {
  write("stages.csv", "f,i,w,activation,kept\n1,1,1,4,1\n1,1,1,1,1\n");
  const std::string asked = "schedule auto --pipeline 2 --microbatches 2 --stage-costs stages.csv ";
  const Answer answer = trireme(asked + "--memory-limit 5,1 --json");
  ASSERT_EQ(answer.status, 0) << answer.err;
  EXPECT_EQ(answer.json()["makespan"], 9);
  EXPECT_EQ(answer.json()["peak_memory"], Json({5, 1}));
  const Answer tight = trireme(asked + "--memory-limit 3");
  EXPECT_EQ(tight.status, 2);
  EXPECT_THAT(tight.err, HasSubstr("rank 0 may hold 3, but a micro-batch needs 4 there"));
}

// At equal work it may cut finer: zb-v ends at 25.5 (docs/schedules.md), one stage per rank at
// 24 + 3 at the least, since the last rank waits for three forwards.
TEST_F(ScheduleCommand, AutoChoosesItsChunksWhereAllHaveTheSameWork) {
  const Answer answer =
      trireme("schedule --compare auto,zb-v --pipeline 4 --microbatches 8 --json");
  ASSERT_EQ(answer.status, 0) << answer.err;
  const Json json = answer.json();
  EXPECT_EQ(json[0]["name"], "auto");
  EXPECT_LE(json[0]["makespan"], json[1]["makespan"]);
  EXPECT_GT(json[0]["stages"].size(), 4U);
}

TEST_F(ScheduleCommand, AutoSearchesAMillionOpsAtMost) {
  const Answer answer = trireme("schedule auto --pipeline 64 --microbatches 8000");
  EXPECT_EQ(answer.status, 2);
  EXPECT_THAT(answer.err, HasSubstr("1024000 ops are more than the million"));
}

TEST_F(ScheduleCommand, AutoChoosesGroupAndWarmUpItself) {
  const Answer answer = trireme("schedule auto --pipeline 2 --microbatches 6 --warm-up 1");
  EXPECT_EQ(answer.status, 2);
  EXPECT_THAT(answer.err, HasSubstr("leave --group, --warm-up and --latency-aware out"));
}

}  // namespace
}  // namespace trireme
