#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>

#include "tests/launcher/scripted_run.h"

// Real controllers, agents and rank processes; the ranks are tests/launcher/fake_rank.cc.
namespace trireme::testing {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

Json outcome_of(const ScratchRun& run) {
  return Json::parse(run.read("outcome.json"));
}

// Long enough that only a fault or a request ends it.
const std::map<std::string, std::string> kEndless = {{"FAKE_STEPS", "100000"}};

TEST(RealRun, EightRanksOnTwoNodesFinish) {
  const ScratchRun run;
  ControllerProcess controller(run, 2, 4, {{"FAKE_STEPS", "5"}});
  EXPECT_EQ(controller.wait(), 0) << run.read("console");
  EXPECT_TRUE(all_gone(run, 1));
  const std::string metrics = run.read("metrics.jsonl");
  EXPECT_EQ(std::count(metrics.begin(), metrics.end(), '\n'), 5);
  const Json first = Json::parse(metrics.substr(0, metrics.find('\n')));
  EXPECT_EQ(first["step"], 0);
  EXPECT_DOUBLE_EQ(first["bubble_fraction"], 0.25) << "fake ranks are busy for 3/4 of their window";
  EXPECT_TRUE(run.read("logs/rank-00007.log").starts_with("fake rank 7"));
  EXPECT_FALSE(run.event("checkpoint", 0).is_null());
}

struct FaultCase {
  std::string fault;
  std::string cause;
};

class RankFault : public ::testing::TestWithParam<FaultCase> {};

TEST_P(RankFault, EndsTheRunWithinTwoSecondsAndIsNamed) {
  const ScratchRun run;
  auto fakes = kEndless;
  fakes["FAKE_FAULT"] = GetParam().fault + "@5:2";
  fakes["FAKE_PEER_LOST"] = "1";
  ControllerProcess controller(run, 2, 4, fakes);
  run.await("rank_started", 5);
  const auto begin = Clock::now();
  EXPECT_EQ(controller.wait(5), 1);
  EXPECT_LT(seconds_since(begin), 2.2);  // two fake steps of 20 ms included
  EXPECT_TRUE(all_gone(run, 0.5));
  const Json failure = outcome_of(run)["failure"];
  EXPECT_EQ(failure["rank"], 5) << failure.dump(1);
  EXPECT_THAT(failure["cause"], HasSubstr(GetParam().cause));
  EXPECT_EQ(failure["doing"]["op"], "3B7");
  EXPECT_EQ(failure["doing"]["step"], 1) << "it died before it noted step 2";
  EXPECT_THAT(failure["log_tail"].dump(), HasSubstr("about to do: " + GetParam().fault));
  EXPECT_EQ(failure["cascade"].size() + failure["teardown"].size(), 7U);
  EXPECT_EQ(run.event("failure")["rank"], 5);
}

// Stopped long before its heartbeat is missed: only its peers know.
TEST(RealRun, ARankThatOnlyItsPeersMissIsNamed) {
  const ScratchRun run;
  auto fakes = kEndless;
  fakes["FAKE_FAULT"] = "hang@5:2";
  fakes["FAKE_PEER_LOST"] = "1";
  ControllerProcess controller(run, 2, 4, fakes);
  EXPECT_EQ(controller.wait(10), 1);
  EXPECT_TRUE(all_gone(run, 0.5));
  const Json failure = outcome_of(run)["failure"];
  EXPECT_EQ(failure["rank"], 5) << failure.dump(1);
  EXPECT_THAT(failure["cause"], HasSubstr("was lost by r"));
  EXPECT_EQ(failure["doing"]["step"], 1);
}

INSTANTIATE_TEST_SUITE_P(All, RankFault,
                         ::testing::Values(FaultCase{"crash", "killed by signal 11 (SIGSEGV)"},
                                           FaultCase{"exit0",
                                                     "exited with code 0 before its work was done"},
                                           FaultCase{"exit3", "exited with code 3"},
                                           FaultCase{"fail", "the loss is not a number"}),
                         [](const auto& test) { return test.param.fault; });

TEST(RealRun, AKilledRankIsNamedWithItsSignal) {
  const ScratchRun run;
  ControllerProcess controller(run, 2, 2, kEndless);
  run.await("rank_started", 3);
  const pid_t victim = run.event("rank_spawned", 2)["pid"];
  kill(victim, SIGKILL);
  const auto begin = Clock::now();
  EXPECT_EQ(controller.wait(5), 1);
  EXPECT_LT(seconds_since(begin), 2);
  EXPECT_TRUE(all_gone(run, 0.5));
  EXPECT_THAT(run.read("console"),
              HasSubstr("the run failed: r2 killed by signal 9 (SIGKILL), not sent by trireme"));
}

TEST(RealRun, AKilledAgentIsNamedAndItsRanksDieWithIt) {
  const ScratchRun run;
  ControllerProcess controller(run, 2, 2, kEndless);
  run.await("rank_started", 3);
  kill(run.event("agent_connected")["pid"].get<pid_t>(), SIGKILL);
  const auto begin = Clock::now();
  EXPECT_EQ(controller.wait(5), 1);
  EXPECT_LT(seconds_since(begin), 2);
  EXPECT_TRUE(all_gone(run, 0.5));
  const Json failure = outcome_of(run)["failure"];
  EXPECT_THAT(failure["subject"], HasSubstr("the agent of node"));
  EXPECT_EQ(failure["node"], run.event("agent_connected")["node"]);
  EXPECT_THAT(failure["cause"], HasSubstr("killed by signal 9"));
}

TEST(RealRun, AgentsOfAKilledControllerEndTheirRanksAndBlameIt) {
  const ScratchRun run;
  ControllerProcess controller(run, 2, 2, kEndless);
  run.await("rank_started", 3);
  kill(controller.pid(), SIGKILL);
  EXPECT_EQ(controller.wait(1), -SIGKILL);
  EXPECT_TRUE(all_gone(run, 2));
  EXPECT_EQ(run.await("failure")["subject"], "the controller");
  EXPECT_THAT(run.read("console"), HasSubstr("the run failed: the controller is gone"));
  EXPECT_THAT(run.read("logs/agent-node0.log"), HasSubstr("the controller is gone"));
  EXPECT_THAT(run.read("logs/agent-node1.log"), HasSubstr("the controller is gone"));
}

// Side by side, because each takes kDeadSeconds.
TEST(RealRun, AStoppedRankAndAStoppedAgentAreNamedAfterTenSeconds) {
  const ScratchRun rank_run;
  const ScratchRun agent_run;
  auto fakes = kEndless;
  fakes["FAKE_FAULT"] = "hang@3:2";
  ControllerProcess with_rank(rank_run, 1, 4, fakes);
  ControllerProcess with_agent(agent_run, 2, 1, kEndless);
  agent_run.await("rank_started", 1);
  kill(agent_run.event("agent_connected")["pid"].get<pid_t>(), SIGSTOP);
  EXPECT_EQ(with_rank.wait(14), 1);
  EXPECT_EQ(with_agent.wait(14), 1);
  EXPECT_TRUE(all_gone(rank_run, 0.5));
  EXPECT_TRUE(all_gone(agent_run, 0.5));
  const Json failure = outcome_of(rank_run)["failure"];
  EXPECT_EQ(failure["rank"], 3) << failure.dump(1);
  EXPECT_THAT(failure["cause"], HasSubstr("stopped answering: silent for 10"));
  EXPECT_THAT(outcome_of(agent_run)["failure"]["cause"], HasSubstr("said nothing for 10 s"));
}

TEST(RealRun, TheFirstSignalStopsAfterASavedStep) {
  for (const auto& [signal, code] : {std::pair(SIGINT, 130), std::pair(SIGTERM, 143)}) {
    const ScratchRun run;
    ControllerProcess controller(run, 2, 2, kEndless);
    run.await("rank_started", 3);
    kill(controller.pid(), signal);
    EXPECT_EQ(controller.wait(5), code);
    EXPECT_TRUE(all_gone(run, 0.5));
    EXPECT_TRUE(outcome_of(run)["stopped"]);
    EXPECT_THAT(outcome_of(run)["checkpoint"], HasSubstr("checkpoints/step-"));
    EXPECT_THAT(run.read("console"), HasSubstr("finishing the current step"));
  }
}

TEST(RealRun, TheSecondSignalTerminatesAndTheThirdKills) {
  const ScratchRun run;
  auto fakes = kEndless;
  fakes["FAKE_FAULT"] = "linger@1:0";  // ignores SIGTERM, never finishes its step
  ControllerProcess controller(run, 1, 2, fakes);
  run.await("rank_started", 1);
  kill(controller.pid(), SIGINT);
  run.await("rank_done", 0);
  std::ignore = usleep(250000);
  kill(controller.pid(), SIGINT);
  EXPECT_TRUE(run.await("stop_asked")["signal"] == SIGINT);
  std::ignore = usleep(300000);
  EXPECT_TRUE(alive(run.event("rank_spawned", 1)["pid"].get<pid_t>()));
  kill(controller.pid(), SIGINT);
  EXPECT_EQ(controller.wait(3), 130);
  EXPECT_TRUE(all_gone(run, 0.5));
  EXPECT_THAT(run.read("console"), HasSubstr("SIGTERM to every rank"));
  EXPECT_THAT(run.read("console"), HasSubstr("SIGKILL to every rank"));
}

// A signal to the process and one to its group right after, as `timeout` sends them; and the
// terminal is gone.
TEST(RealRun, SignalsThatComeTogetherAreOneWishAndAHangUpIsOneToo) {
  for (const auto& [signal, code] : {std::pair(SIGTERM, 143), std::pair(SIGHUP, 129)}) {
    const ScratchRun run;
    ControllerProcess controller(run, 1, 2, kEndless);
    run.await("rank_started", 1);
    kill(controller.pid(), signal);
    std::ignore = usleep(1000);
    kill(controller.pid(), signal);
    EXPECT_EQ(controller.wait(5), code);
    EXPECT_THAT(outcome_of(run)["checkpoint"], HasSubstr("checkpoints/step-"));
  }
}

TEST(RealRun, AProgramThatCannotRunIsNamedWithTheReason) {
  const ScratchRun run;
  std::ofstream(run.path() + "/rank") << "no program\n";
  std::filesystem::permissions(run.path() + "/rank", std::filesystem::perms::owner_all);
  ControllerProcess controller(run, 1, 2, {{"TRIREME_RANK_PROGRAM", run.path() + "/rank"}});
  EXPECT_EQ(controller.wait(5), 1);
  EXPECT_THAT(outcome_of(run)["failure"]["cause"], HasSubstr("/rank: Exec format error"));
}

TEST(RealRun, NonsenseFromARankIsItsFailure) {
  const ScratchRun run;
  auto fakes = kEndless;
  fakes["FAKE_FAULT"] = "garbage@0:1";
  ControllerProcess controller(run, 1, 2, fakes);
  EXPECT_EQ(controller.wait(9), 1);
  const Json failure = outcome_of(run)["failure"];
  EXPECT_EQ(failure["rank"], 0);
  EXPECT_THAT(failure["cause"], HasSubstr("talked nonsense"));
}

TEST(RealRun, AMissingRankProgramIsNamed) {
  const ScratchRun run;
  ControllerProcess controller(run, 1, 2, {{"TRIREME_RANK_PROGRAM", "/nowhere/trireme-rank"}});
  EXPECT_EQ(controller.wait(5), 1);
  EXPECT_THAT(outcome_of(run)["failure"]["cause"],
              HasSubstr("/nowhere/trireme-rank: No such file"));
}

}  // namespace
}  // namespace trireme::testing
