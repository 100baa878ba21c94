// plan, estimate and show, as their users see them.

#include <gmock/gmock.h>

#include <algorithm>

#include "tests/commandline/command.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;
using Json = nlohmann::json;

class PlanCommand : public Command {};

std::vector<std::string> keys_of(const Json& object) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : object.items()) keys.push_back(key);
  return keys;
}

const char* const kEightRanks =
    "--pin tensor=2 --pin pipeline=2 --pin data=2 --pin chunks=1 --pin schedule=1f1b "
    "--pin micro_batch=2";

TEST_F(PlanCommand, JsonHasTheKeysThatOtherProgramsRelyOn) {
  const Answer answer = trireme("plan job.toml --cluster cluster.toml --json --top 3");
  ASSERT_EQ(answer.status, 0) << answer.err;
  EXPECT_EQ(answer.err, "");
  const Json json = answer.json();
  for (const char* key :
       {"layout", "stages", "prediction", "placement", "search", "alternatives"}) {
    EXPECT_TRUE(json.contains(key)) << key;
  }
  EXPECT_THAT(keys_of(json["layout"]),
              ::testing::UnorderedElementsAre("tensor", "pipeline", "data", "chunks", "schedule",
                                              "micro_batch", "micro_batches", "sequence_parallel",
                                              "recompute", "optimizer_sharding"));
  EXPECT_THAT(keys_of(json["stages"][0]),
              ::testing::UnorderedElementsAre("pipeline_rank", "chunk", "first_layer", "layers",
                                              "embedding", "head", "recompute"));
  EXPECT_THAT(
      keys_of(json["placement"][0]),
      ::testing::UnorderedElementsAre("rank", "node", "device", "tensor", "pipeline", "data"));
  for (const char* key : {"step_seconds", "tokens_per_second", "model_tflops_per_device",
                          "hardware_tflops_per_device", "mfu", "bubble_fraction",
                          "memory_bytes_per_pipeline_rank", "breakdown"}) {
    EXPECT_TRUE(json["prediction"].contains(key)) << key;
  }
  EXPECT_TRUE(json["search"].contains("evaluated"));
  EXPECT_TRUE(json["search"].contains("seconds"));
  EXPECT_EQ(json["alternatives"].size(), 2U);  // --top counts the chosen one
}

// A step trains 32 samples of 256 tokens; shares lie between 0 and 1; a GPU has 80 GB.
TEST_F(PlanCommand, UnitsAreThoseOfTheNames) {
  const Answer answer =
      trireme(std::string("estimate job.toml --cluster cluster.toml --json ") + kEightRanks);
  ASSERT_EQ(answer.status, 0) << answer.err;
  const Json prediction = answer.json()["prediction"];
  const double step = prediction["step_seconds"];
  EXPECT_NEAR(prediction["tokens_per_second"].get<double>() * step, 32 * 256, 1e-6 * 32 * 256);
  EXPECT_GT(prediction["mfu"].get<double>(), 0);
  EXPECT_LT(prediction["mfu"].get<double>(), 1);
  EXPECT_GT(prediction["bubble_fraction"].get<double>(), 0);
  EXPECT_LT(prediction["bubble_fraction"].get<double>(), 1);
  ASSERT_EQ(prediction["memory_bytes_per_pipeline_rank"].size(), 2U);
  for (const Json& bytes : prediction["memory_bytes_per_pipeline_rank"]) {
    EXPECT_GT(bytes.get<double>(), 1e6);
    EXPECT_LT(bytes.get<double>(), 80e9);
  }
  double sum = 0;
  for (const auto& [cause, seconds] : prediction["breakdown"].items()) {
    EXPECT_GE(seconds.get<double>(), 0) << cause;
    sum += seconds.get<double>();
  }
  EXPECT_NEAR(sum, step, 1e-6 * step);
}

TEST_F(PlanCommand, EstimateTakesExactlyThePins) {
  const Answer answer =
      trireme(std::string("estimate job.toml --cluster cluster.toml --json ") + kEightRanks);
  ASSERT_EQ(answer.status, 0) << answer.err;
  const Json json = answer.json();
  EXPECT_EQ(json["layout"]["tensor"], 2);
  EXPECT_EQ(json["layout"]["pipeline"], 2);
  EXPECT_EQ(json["layout"]["data"], 2);
  EXPECT_EQ(json["layout"]["schedule"], "1f1b");
  EXPECT_EQ(json["layout"]["micro_batches"], 8);  // 32 samples / 2 replicas / 2
  ASSERT_EQ(json["placement"].size(), 8U);
  for (int rank = 0; rank < 8; ++rank) {  // rank = t + 2 (d + 2 p)
    const Json& at = json["placement"][static_cast<size_t>(rank)];
    EXPECT_EQ(at["tensor"], rank % 2);
    EXPECT_EQ(at["data"], rank / 2 % 2);
    EXPECT_EQ(at["pipeline"], rank / 4);
  }
}

// 16 bytes and more for each of 26 billion parameters on one device: it is said what the step would
// take, what is needed, and that it does not fit.
TEST_F(PlanCommand, EstimatePredictsWhatDoesNotFitAndSaysSo) {
  std::string job = read("job.toml");
  job.replace(job.find("hidden = 512"), 12, "hidden = 32768");
  write("large.toml", job);
  const Answer answer = trireme(
      "estimate large.toml --cluster cluster.toml --json --pin tensor=1 --pin pipeline=1 --pin "
      "data=8");
  EXPECT_EQ(answer.status, 3);
  EXPECT_THAT(answer.err, HasSubstr("no layout fits the memory; closest is tensor=1"));
  const Json json = answer.json();
  EXPECT_GT(json["prediction"]["step_seconds"], 0);
  EXPECT_GT(json["prediction"]["memory_bytes_per_pipeline_rank"][0], 80e9);
  EXPECT_THAT(json["notes"].dump(), HasSubstr("does not fit"));
}

// A card of M GB holds M GiB, 7.4 % more. A layout that needs 5 % more than M is predicted with a
// note, one that needs 10 % more does not fit.
TEST_F(PlanCommand, EstimateGivesTheRoomForFragmentationTheBenefitOfTheDoubt) {
  const std::string command =
      std::string("--json --pin recompute=none --pin sequence_parallel=false ") + kEightRanks;
  const Answer fits = trireme("estimate job.toml --cluster cluster.toml " + command);
  ASSERT_EQ(fits.status, 0) << fits.err;
  const Json bytes = fits.json()["prediction"]["memory_bytes_per_pipeline_rank"];
  const double most = std::max(bytes[0].get<double>(), bytes[1].get<double>());
  const auto on = [&](double excess) {
    std::string cluster = read("cluster.toml");
    const std::string device = "\"A100-SXM4-80GB\"";
    cluster.replace(
        cluster.find(device), device.size(),
        "{name = " + device + ", memory_gb = " + std::to_string(most / 1e9 / excess) + "}");
    write("small.toml", cluster);
    return trireme("estimate job.toml --cluster small.toml " + command);
  };
  const Answer lucky = on(1.05), misses = on(1.10);
  EXPECT_EQ(lucky.status, 0) << lucky.err;
  EXPECT_THAT(lucky.json()["notes"].dump(), HasSubstr("fits only without fragmentation"));
  EXPECT_EQ(misses.status, 3);
  EXPECT_THAT(misses.json()["notes"].dump(), HasSubstr("does not fit"));
}

TEST_F(PlanCommand, TwoPinsOfOneKeyAreAContradiction) {
  const Answer answer =
      trireme("estimate job.toml --cluster cluster.toml --json --pin tensor=2 --pin tensor=4");
  EXPECT_EQ(answer.status, 2);
  EXPECT_EQ(answer.err, "trireme: --pin tensor=4 contradicts --pin tensor=2\n");
}

TEST_F(PlanCommand, RanksThatRecomputeArePinnedWithWhatTheyRecompute) {
  const Answer answer =
      trireme("plan job.toml --cluster cluster.toml --json --pin recompute_ranks=3");
  ASSERT_EQ(answer.status, 0) << answer.err;
  const auto layout = answer.json()["layout"];
  EXPECT_EQ(layout["recompute_ranks"], 3);
  EXPECT_NE(layout["recompute"], "none");
  EXPECT_GE(layout["pipeline"], 3);
}

TEST_F(PlanCommand, MoreRefusalsThanAnybodyReadsAreCounted) {
  const Answer answer = trireme("plan job.toml --cluster cluster.toml --json --rejected");
  ASSERT_EQ(answer.status, 0) << answer.err;
  const auto json = answer.json();
  EXPECT_LE(json["rejections"].size(), 10000U);
  EXPECT_EQ(json["more_rejections"] > 0, json["rejections"].size() == 10000U);
}

TEST_F(PlanCommand, RefusalsAreListedWhereThereIsNoPlan) {
  std::string job = read("job.toml");
  job.replace(job.find("hidden = 512"), 12, "hidden = 131072");  // 400 GB and more a layer
  write("large.toml", job);
  const std::string no_room = " --cluster cluster.toml --rejected";
  const Answer table = trireme("plan large.toml" + no_room);
  EXPECT_EQ(table.status, 3);
  EXPECT_THAT(table.out, StartsWith("Rejected\n  "));
  EXPECT_THAT(table.err, HasSubstr("no layout fits"));
  const Answer answer = trireme("plan large.toml --json" + no_room);
  EXPECT_EQ(answer.status, 3);
  EXPECT_FALSE(answer.json()["rejections"].empty());
}

TEST_F(PlanCommand, ResultsThatCannotBeWrittenAreNoSuccess) {
  for (const char* command :
       {"plan job.toml --cluster cluster.toml", "schedule 1f1b --pipeline 2 --microbatches 2"}) {
    EXPECT_EQ(trireme(std::string(command) + " > /dev/full 2> said.txt; echo $?").out, "1\n")
        << command;
  }
  EXPECT_EQ(trireme("plan none.toml --cluster cluster.toml 2> /dev/full; echo $?").out, "2\n");
}

TEST_F(PlanCommand, TablesFitAHundredColumns) {
  const Answer answer = trireme(std::string("plan job.toml --cluster cluster.toml ") + kEightRanks);
  ASSERT_EQ(answer.status, 0) << answer.err;
  EXPECT_THAT(answer.out, StartsWith("small on box (8 x A100-SXM4-80GB)\n"));
  for (size_t begin = 0; begin < answer.out.size();) {
    const size_t end = answer.out.find('\n', begin);
    EXPECT_LE(end - begin, 100U) << answer.out.substr(begin, end - begin);
    begin = end + 1;
  }
}

TEST_F(PlanCommand, TheWrittenPlanIsWhatShowShows) {
  const Answer planned = trireme(
      std::string("plan job.toml --cluster cluster.toml --json -o plan.toml ") + kEightRanks);
  ASSERT_EQ(planned.status, 0) << planned.err;
  EXPECT_EQ(planned.err, "plan written to plan.toml\n");
  const Answer shown = trireme("show plan.toml --json");
  ASSERT_EQ(shown.status, 0) << shown.err;
  for (const char* key : {"layout", "stages", "prediction", "placement"}) {
    EXPECT_EQ(shown.json()[key], planned.json()[key]) << key;
  }
}

TEST_F(PlanCommand, ShowDrawsPagePictureAndTrace) {
  ASSERT_EQ(trireme(std::string("plan job.toml --cluster cluster.toml -o plan.toml ") + kEightRanks)
                .status,
            0);
  const Answer answer = trireme("show plan.toml --html p.html --svg p.svg --trace p.json --json");
  ASSERT_EQ(answer.status, 0);
  EXPECT_EQ(answer.json()["layout"]["tensor"], 2);
  EXPECT_THAT(read("p.svg"), StartsWith("<svg "));
  EXPECT_THAT(read("p.html"), HasSubstr("<svg "));
  int ops = 0;
  const Json trace = Json::parse(read("p.json"));
  for (const Json& event : trace["traceEvents"]) ops += event["ph"] == "X" ? 1 : 0;
  EXPECT_EQ(ops, 2 * 2 * 8);  // two stages, forward and backward, eight micro-batches
}

// The job's batch of 32 in eight micro-batches is what a schedule of eight leaves open.
TEST_F(PlanCommand, AScheduleFileTakesThePlaceOfTheBuiltOnes) {
  const Answer csv = trireme("schedule zb-v --pipeline 2 --microbatches 8 --format csv");
  write("mine.csv", csv.out);
  const Answer answer = trireme(
      "plan job.toml --cluster cluster.toml --schedule-file mine.csv --top 50 --json -o plan.toml");
  ASSERT_EQ(answer.status, 0) << answer.err;
  const Json json = answer.json();
  EXPECT_EQ(json["layout"]["schedule"], "mine.csv");
  EXPECT_EQ(json["layout"]["pipeline"], 2);
  EXPECT_EQ(json["layout"]["chunks"], 2);
  EXPECT_EQ(json["layout"]["micro_batches"], 8);
  EXPECT_EQ(json["stages"][3]["pipeline_rank"], 0);
  EXPECT_GT(json["alternatives"].size(), 4U);
  for (const Json& other : json["alternatives"]) {
    EXPECT_EQ(other["layout"]["schedule"], "mine.csv");
  }
  const std::string plan = read("plan.toml");
  EXPECT_THAT(plan, HasSubstr(csv.out.substr(0, csv.out.find('\n'))));
  // As built in, it has the same time.
  std::string pins = "estimate job.toml --cluster cluster.toml --json --pin schedule=zb-v";
  for (const char* key : {"tensor", "pipeline", "data", "micro_batch", "recompute",
                          "sequence_parallel", "optimizer_sharding"}) {
    const Json& value = json["layout"][key];
    pins += std::string(" --pin ") + key + "=" +
            (value.is_string() ? value.get<std::string>() : value.dump());
  }
  EXPECT_DOUBLE_EQ(trireme(pins).json()["prediction"]["step_seconds"],
                   json["prediction"]["step_seconds"]);
}

TEST_F(PlanCommand, AScheduleFileThatCannotBeIsNamed) {
  write("two.csv", "0F0,0B0,0F1,0B1\n1F0,1B0,1F1,1B1\n");
  write("three.csv", "0F0,0B0,0F1,0B1,0F2,0B2\n");
  write("twice.csv", "0F0,0B0,0F1,0B0\n");
  write("forwards.csv", "0F0,0F1\n");
  const auto complaint = [&](const std::string& more) {
    const Answer answer = trireme("plan job.toml --cluster cluster.toml --schedule-file " + more);
    EXPECT_EQ(answer.status, 2);
    EXPECT_EQ(answer.out, "");
    return answer.err;
  };
  EXPECT_THAT(complaint("none.csv"), HasSubstr("none.csv: cannot be read"));
  EXPECT_THAT(complaint("two.csv --pin pipeline=4"),
              HasSubstr("pipeline=4 contradicts two.csv, which has 2"));
  EXPECT_THAT(complaint("two.csv --pin schedule=1f1b"), HasSubstr("expected one of them"));
  EXPECT_THAT(complaint("three.csv"),
              HasSubstr("global_batch = 32 is not divisible by the 3 micro-batches of three.csv"));
  EXPECT_THAT(complaint("twice.csv"), HasSubstr("twice.csv: rank 0, op 3: 0B0"));
  EXPECT_THAT(complaint("forwards.csv"), HasSubstr("expected a schedule that trains"));
}

struct Mistake {
  const char* name;
  const char* file;  // nullptr: no file is changed
  const char* old_text;
  const char* new_text;
  const char* arguments;
  int status;
  const char* message;  // part of it
};

class PlanMistakes : public Command, public testing::WithParamInterface<Mistake> {};

// Wrong input changes nothing, prints nothing on stdout, and says where the mistake is.
TEST_P(PlanMistakes, AreNamed) {
  const Mistake& mistake = GetParam();
  if (mistake.file != nullptr) replace(mistake.file, mistake.old_text, mistake.new_text);
  const Answer answer = trireme(mistake.arguments);
  EXPECT_EQ(answer.status, mistake.status);
  EXPECT_EQ(answer.out, "");
  EXPECT_THAT(answer.err, HasSubstr(mistake.message));
}

std::string name_of_mistake(const testing::TestParamInfo<Mistake>& tested) {
  return tested.param.name;
}

const char* const kPlan = "plan job.toml --cluster cluster.toml";

INSTANTIATE_TEST_SUITE_P(
    All, PlanMistakes,
    testing::Values(
        Mistake{"MisspeltRequiredKey", "job.toml", "layers", "layrs", kPlan, 2,
                "model.layers: missing"},
        Mistake{"MisspeltOptionalKey", "job.toml", "steps = 10", "steps = 10\nseeds = 3", kPlan, 2,
                "job.toml:12:1: training.seeds: found an unknown key; did you mean \"seed\"?"},
        Mistake{"MissingKey", "job.toml", "layers = 8\n", "", kPlan, 2, "model.layers: missing"},
        Mistake{"WrongType", "job.toml", "layers = 8", "layers = \"eight\"", kPlan, 2,
                "job.toml:4:10: model.layers: found \"eight\", expected an integer"},
        Mistake{"NoDevices", "cluster.toml", "devices = 8", "devices = 0", kPlan, 2,
                "cluster.toml:5:11: nodes[0].devices: found 0, expected an integer from 1"},
        Mistake{"UnknownDevice", "cluster.toml", "A100-SXM4-80GB", "A100-SXM4-80G", kPlan, 2,
                "cluster.toml:4:10: nodes[0].device: found \"A100-SXM4-80G\""},
        Mistake{"NotToml", "job.toml", "[model]", "[model", kPlan, 2, "job.toml:2:"},
        Mistake{"NoJobFile", nullptr, "", "", "plan none.toml --cluster cluster.toml", 2,
                "none.toml: cannot be read: No such file or directory"},
        Mistake{"NoClusterFile", nullptr, "", "", "plan job.toml --cluster none.toml", 2,
                "none.toml: cannot be read: No such file or directory"},
        Mistake{"FolderForAFile", nullptr, "", "", "plan . --cluster cluster.toml", 2,
                ".: cannot be read: it is a directory"},
        Mistake{"EmptyJob", nullptr, "", "", "plan '' --cluster cluster.toml", 2,
                "JOB: found an empty value"},
        Mistake{"NoCluster", nullptr, "", "", "plan job.toml", 2, "--cluster is required"},
        Mistake{"UnknownOption", nullptr, "", "", "plan job.toml --cluster cluster.toml --pins 3",
                2, "plan: found \"--pins\", which it does not know; did you mean --pin?"},
        Mistake{"TopOfNothing", nullptr, "", "", "plan job.toml --cluster cluster.toml --top 0", 2,
                "--top"},
        Mistake{"NoCommand", nullptr, "", "", "", 2, "subcommand is required"},
        Mistake{"UnknownCommand", nullptr, "", "", "plann job.toml", 2,
                "no command is called \"plann\"; did you mean plan?"}),
    name_of_mistake);

INSTANTIATE_TEST_SUITE_P(
    Pins, PlanMistakes,
    testing::Values(
        Mistake{"Unknown", nullptr, "", "",
                "estimate job.toml --cluster cluster.toml --pin tensr=2", 2,
                "--pin: found an unknown key \"tensr\"; did you mean \"tensor\"?"},
        Mistake{"WithoutValue", nullptr, "", "",
                "estimate job.toml --cluster cluster.toml --pin tensor", 2,
                "--pin: found \"tensor\", expected key=value"},
        Mistake{"OfZero", nullptr, "", "",
                "estimate job.toml --cluster cluster.toml --pin micro_batch=0", 2,
                "--pin micro_batch: found \"0\", expected an integer from 1"},
        Mistake{"OfNoSchedule", nullptr, "", "",
                "estimate job.toml --cluster cluster.toml --pin schedule=2f2b", 2,
                "--pin schedule: found \"2f2b\", expected one of naive, gpipe"},
        Mistake{"OfNoRecomputation", nullptr, "", "",
                "estimate job.toml --cluster cluster.toml --pin recompute=some", 2,
                "--pin recompute: found \"some\", expected one of none, selective, full"},
        Mistake{"ThatContradictInTheFile", "job.toml", "format = \"text\"",
                "format = \"text\"\n[layout]\nschedule = \"1f1b\"\nchunks = 2", kPlan, 2,
                "pins contradict each other: schedule=1f1b (job.toml:16:12) has one stage per "
                "pipeline rank, chunks=2 (job.toml:17:10) asks for another number"},
        Mistake{"ThatContradictTheFile", "job.toml", "format = \"text\"",
                "format = \"text\"\n[layout]\ndata = 3\nmicro_batch = 2",
                "plan job.toml --cluster cluster.toml --pin data=5", 2,
                "data=5 micro_batch=2 (job.toml:17:15) contradict global_batch = 32"},
        Mistake{"ThatTheLayersDoNotHold", "job.toml", "format = \"text\"",
                "format = \"text\"\n[layout]\npipeline = 6\nschedule = \"zb-v\"", kPlan, 2,
                "pipeline=6 (job.toml:16:12) schedule=zb-v (job.toml:17:12) contradict layers = 8: "
                "12 stages"},
        Mistake{"ThatContradict", nullptr, "", "",
                "plan job.toml --cluster cluster.toml --pin schedule=1f1b --pin chunks=2", 2,
                "pins contradict each other: schedule=1f1b"},
        Mistake{"RecomputingWithoutRecomputation", nullptr, "", "",
                "plan job.toml --cluster cluster.toml --pin recompute=none --pin recompute_ranks=1",
                2, "recompute=none, recompute_ranks=1: then none recomputes"},
        Mistake{"RecomputingOnMoreThanThereAre", nullptr, "", "",
                "plan job.toml --cluster cluster.toml --pin pipeline=2 --pin recompute_ranks=3", 2,
                "recompute_ranks=3 of pipeline=2"},
        Mistake{"ThatTheScheduleForbids", nullptr, "", "",
                "plan job.toml --cluster cluster.toml --pin schedule=dualpipe-v --pin pipeline=4 "
                "--pin data=2 --pin micro_batch=4",
                3, "dualpipe-v fills both arms of its V before pairs overlap, so 4 pipeline ranks"},
        Mistake{"OfShardsThatDoNotFillTheReplicas", "job.toml", "[data]",
                "[execution]\nsharding_ranks = 3\n[data]",
                "plan job.toml --cluster cluster.toml --pin optimizer_sharding=1 --pin data=8", 3,
                "tensor=1 pipeline=1 data=8: sharding_ranks=3 do not divide these replicas"},
        Mistake{"ThatNeedMoreDevices", nullptr, "", "",
                "plan job.toml --cluster cluster.toml --pin data=16", 3,
                "tensor=1 pipeline=1: needs 16 devices or more, there are 8"},
        Mistake{"OfAScheduleToImprove", nullptr, "", "",
                "plan job.toml --cluster cluster.toml --pin schedule=1f1b --improve-schedule", 2,
                "--improve-schedule contradicts schedule=1f1b"},
        Mistake{"ThatDoNotFitTheNode", nullptr, "", "",
                "plan job.toml --cluster cluster.toml --pin tensor=16", 3,
                "no layout fits; tensor=16: tensor ranks stay inside a node, which has 8"},
        Mistake{"ThatDoNotFitTheCluster", nullptr, "", "",
                "plan job.toml --cluster cluster.toml --pin tensor=8 --pin pipeline=2", 3,
                "needs 16 devices or more, there are 8"},
        Mistake{"ThatDoNotFitTheMemory", "job.toml", "hidden = 512", "hidden = 65536",
                "plan job.toml --cluster cluster.toml", 3, "no layout fits the memory"}),
    name_of_mistake);

INSTANTIATE_TEST_SUITE_P(
    Show, PlanMistakes,
    testing::Values(Mistake{"NoFile", nullptr, "", "", "show none.toml", 2,
                            "none.toml: cannot be read"},
                    Mistake{"AJobForAPlan", nullptr, "", "", "show job.toml", 2,
                            "job.toml:1:1: format: missing, expected one of trireme-plan-1"}),
    name_of_mistake);

TEST_F(PlanCommand, AFileThatCannotBeWrittenFailsTheCommand) {
  const Answer answer =
      trireme(std::string("plan job.toml --cluster cluster.toml -o no/plan.toml ") + kEightRanks);
  EXPECT_EQ(answer.status, 1);
  EXPECT_EQ(answer.err, "trireme: no/plan.toml: cannot be written: No such file or directory\n");
}

TEST_F(PlanCommand, EveryCommandExplainsItselfWithAnExample) {
  for (const char* name : {"plan", "estimate", "show", "schedule", "run"}) {
    const Answer answer = trireme(std::string(name) + " --help");
    EXPECT_EQ(answer.status, 0) << name;
    EXPECT_THAT(answer.out, HasSubstr("Example")) << name;
    EXPECT_THAT(answer.out, HasSubstr(std::string("trireme ") + name)) << name;
  }
}

}  // namespace
}  // namespace trireme
