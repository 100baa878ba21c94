#include "launcher/agent_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>

#include "planner/plan/protocol.h"

namespace trireme {
namespace {

using Json = nlohmann::json;
using Phase = AgentPhase;

const Json kLaunch = {
    {"type", "launch"}, {"ranks", {4, 5}}, {"run_directory", "/run"}, {"resume", ""}};

// An agent of ranks 4 and 5 under a made-up clock, and what it did.
class Agent {
 public:
  Agent& feed(const AgentEvent& event) {
    for (AgentAction& action : state_.handle(event, now_)) {
      if (auto* spawn = std::get_if<SpawnRank>(&action)) {
        spawned.push_back(spawn->rank);
        feed(RankSpawned{spawn->rank, 1000 + spawn->rank});
      } else if (auto* signal = std::get_if<SignalRank>(&action)) {
        signals.emplace_back(signal->rank, signal->signal);
      } else if (auto* send = std::get_if<SendToController>(&action)) {
        sent.push_back(send->message);
      } else if (auto* tell = std::get_if<SendToRank>(&action)) {
        told.emplace_back(tell->rank, tell->message);
      } else if (auto* silence = std::get_if<ReportSilence>(&action)) {
        silent.push_back(silence->rank);
      } else if (auto* blame = std::get_if<BlameController>(&action)) {
        blamed = blame->why;
      } else if (auto* leave = std::get_if<LeaveRun>(&action)) {
        left = leave->exit_code;
      }
    }
    return *this;
  }
  Agent& hear(const Json& message) { return feed(ControllerSaid{message}); }
  Agent& tick(double now) {
    now_ = now;
    return feed(AgentTick{});
  }
  // Ticks up to `end`, the controller alive all the time, and the ranks in `talking`.
  Agent& live(double end, const std::vector<int>& talking) {
    while (now_ < end) {
      tick(now_ + 0.25);
      hear({{"type", "alive"}});
      for (const int rank : talking) feed(RankSaid{rank, {{"type", "alive"}}});
    }
    return *this;
  }
  Agent& end(int rank, const ExitStatus& status = {}) {
    return feed(RankEnded{rank, status, nullptr, {}});
  }
  Phase phase() const { return state_.phase(); }

  std::vector<int> spawned, silent;
  std::vector<std::pair<int, int>> signals;
  std::vector<Json> sent;
  std::vector<std::pair<int, Json>> told;
  std::string blamed;
  int left = -1;

 private:
  double now_ = 0;
  AgentState state_{0};
};

const std::vector<std::pair<int, int>> kBothKilled = {{4, SIGKILL}, {5, SIGKILL}};

TEST(AgentState, LaunchesRunsAndLeaves) {
  Agent agent;
  agent.hear(kLaunch);
  EXPECT_EQ(agent.phase(), Phase::running);
  EXPECT_EQ(agent.spawned, (std::vector<int>{4, 5}));
  agent.end(4).end(5);
  EXPECT_EQ(agent.phase(), Phase::running) << "the controller says when it is over";
  agent.hear({{"type", "leave"}});
  EXPECT_EQ(agent.phase(), Phase::gone);
  EXPECT_EQ(agent.left, 0);
  EXPECT_TRUE(agent.signals.empty());
}

TEST(AgentState, LeavesWithoutHavingLaunched) {
  Agent agent;
  agent.hear({{"type", "leave"}});
  EXPECT_EQ(agent.left, 0);
}

TEST(AgentState, AbortKillsWhatIsLeftAfterTheGrace) {
  Agent agent;
  agent.hear(kLaunch).hear({{"type", "abort"}, {"grace_seconds", 0.3}});
  EXPECT_EQ(agent.phase(), Phase::ending);
  agent.end(4, {.code = 1}).tick(0.25);
  EXPECT_TRUE(agent.signals.empty());
  agent.tick(0.31);
  EXPECT_EQ(agent.phase(), Phase::killing);
  EXPECT_EQ(agent.signals, (std::vector<std::pair<int, int>>{{5, SIGKILL}}));
  agent.hear({{"type", "leave"}});
  EXPECT_EQ(agent.left, -1) << "not before the killed rank is gone";
  agent.end(5, {.code = 0, .signal = SIGKILL, .by_us = true});
  EXPECT_EQ(agent.left, 0);
}

TEST(AgentState, AnAbortWithoutGraceShortensARunningOne) {
  Agent agent;
  agent.hear(kLaunch).hear({{"type", "abort"}, {"grace_seconds", 0.3}});
  agent.hear({{"type", "abort"}, {"grace_seconds", 0}});
  EXPECT_EQ(agent.signals, kBothKilled);
}

TEST(AgentState, TerminateSendsSigtermAndStopReachesEveryRank) {
  Agent agent;
  agent.hear(kLaunch).hear({{"type", "stop"}});
  EXPECT_EQ(agent.told.size(), 2U);
  agent.hear({{"type", "terminate"}});
  EXPECT_EQ(agent.signals, (std::vector<std::pair<int, int>>{{4, SIGTERM}, {5, SIGTERM}}));
  EXPECT_EQ(agent.phase(), Phase::running);
}

TEST(AgentState, ALostControllerIsBlamedInEveryPhase) {
  for (const Phase phase : {Phase::waiting, Phase::running, Phase::ending, Phase::killing}) {
    Agent agent;
    if (phase != Phase::waiting) agent.hear(kLaunch);
    if (phase == Phase::ending) agent.hear({{"type", "abort"}, {"grace_seconds", 1}});
    if (phase == Phase::killing) agent.hear({{"type", "abort"}, {"grace_seconds", 0}});
    ASSERT_EQ(agent.phase(), phase);
    agent.signals.clear();
    agent.feed(ControllerLost{"it closed the connection"});
    EXPECT_EQ(agent.blamed, "it closed the connection");
    if (phase != Phase::waiting) {
      EXPECT_EQ(agent.phase(), Phase::orphaned);
      EXPECT_EQ(agent.signals, kBothKilled);
      agent.end(4).end(5);
    }
    EXPECT_EQ(agent.left, 1);
  }
}

TEST(AgentState, AnOrphanDoesNotWaitForEverForAnUnkillableRank) {
  Agent agent;
  agent.hear(kLaunch).feed(ControllerLost{"gone"}).tick(1.9);
  EXPECT_EQ(agent.left, -1);
  agent.tick(2.1);
  EXPECT_EQ(agent.left, 1);
}

TEST(AgentState, TheLeaseEndsAfterEightSilentSeconds) {
  Agent agent;
  agent.hear(kLaunch);
  for (int half = 0; half < 16; ++half) agent.tick(half / 2.0);
  EXPECT_EQ(agent.phase(), Phase::running);
  agent.tick(8.0);
  EXPECT_EQ(agent.phase(), Phase::orphaned);
  EXPECT_EQ(agent.signals, kBothKilled);
}

TEST(AgentState, ARankIsSilentTenSecondsAfterItsLastWord) {
  Agent agent;
  agent.hear(kLaunch);
  agent.live(2, {4, 5}).live(11.75, {5});
  EXPECT_TRUE(agent.silent.empty());
  agent.live(20, {5});
  EXPECT_EQ(agent.silent, (std::vector<int>{4})) << "once, and only the silent one";
}

TEST(AgentState, ARankMayTakeThirtySecondsForItsFirstWord) {
  Agent agent;
  agent.hear(kLaunch).live(29.5, {5});
  EXPECT_TRUE(agent.silent.empty());
  agent.live(30.5, {5});
  EXPECT_EQ(agent.silent, (std::vector<int>{4}));
}

TEST(AgentState, AnAgentThatSleptForgivesItsRanks) {
  Agent agent;
  agent.hear(kLaunch).live(1, {4, 5});
  agent.tick(6).hear({{"type", "alive"}}).tick(12).hear({{"type", "alive"}}).tick(18);
  EXPECT_TRUE(agent.silent.empty());
}

TEST(AgentState, BeatsOnceASecondAndKeepsAliveMessagesToItself) {
  Agent agent;
  agent.hear(kLaunch).sent.clear();
  agent.live(10, {4, 5});
  // Ticks at 0.25, 0.5 ... 10: beats at 0.25, 1.25, ... 9.25.
  EXPECT_EQ(agent.sent.size(), 10U);
  agent.feed(RankSaid{4, {{"type", "started"}}});
  EXPECT_EQ(agent.sent.back(),
            Json({{"type", "rank"}, {"rank", 4}, {"message", {{"type", "started"}}}}));
}

TEST(AgentState, ARankThatCannotBeStartedIsReportedAsEnded) {
  AgentState state(0);
  state.handle(ControllerSaid{kLaunch}, 0);
  const auto actions = state.handle(SpawnFailed{4, "no such program"}, 0);
  ASSERT_EQ(actions.size(), 2U);
  EXPECT_EQ(std::get<SendToController>(actions[0]).message["message"]["message"],
            "no such program");
  EXPECT_EQ(std::get<SendToController>(actions[1]).message["type"], "ended");
}

}  // namespace
}  // namespace trireme
