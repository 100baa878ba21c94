#include "launcher/controller_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>

#include "planner/plan/protocol.h"
#include "topology/base/error.h"

// The controller under a made-up clock: no sockets, no processes, no waiting.
namespace trireme {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Json = nlohmann::json;
using Phase = ControllerPhase;

// A controller of `nodes` agents with two ranks each, and what it has sent and said so far.
class Rehearsal {
 public:
  explicit Rehearsal(int nodes = 2) : nodes_(nodes), state_(setup(nodes), 0) {}

  Rehearsal& at(double now) {
    now_ = now;
    return *this;
  }
  Rehearsal& feed(const ControllerEvent& event) {
    for (const ControllerAction& action : state_.handle(event, now_)) {
      if (const auto* send = std::get_if<SendToAgent>(&action)) {
        sent.emplace_back(send->node, send->message);
      } else if (const auto* record = std::get_if<RecordEvent>(&action)) {
        events.push_back(record->event);
      } else if (const auto* step = std::get_if<StepDone>(&action)) {
        steps.push_back(step->metrics);
      } else if (std::holds_alternative<Finish>(action)) {
        finished = true;
      }
    }
    return *this;
  }
  Rehearsal& tick(double now) { return at(now).feed(ControllerTick{}); }
  Rehearsal& connect() {
    for (int n = 0; n < nodes_; ++n) feed(AgentConnected{n, 100 + n});
    return *this;
  }
  Rehearsal& say(int rank, const Json& message) {
    return feed(AgentSaid{rank / 2, {{"type", "rank"}, {"rank", rank}, {"message", message}}});
  }
  Rehearsal& train() {
    connect();
    for (int r = 0; r < ranks(); ++r) say(r, {{"type", "started"}});
    return *this;
  }
  Rehearsal& ended(int rank, const ExitStatus& status, double silent = 0) {
    return feed(AgentSaid{rank / 2,
                          {{"type", "ended"},
                           {"rank", rank},
                           {"status", to_json(status)},
                           {"silent_seconds", silent},
                           {"doing", {{"doing", "op"}}},
                           {"log_tail", {"last words"}}}});
  }
  Rehearsal& all_ended(const ExitStatus& status) {
    for (int r = 0; r < ranks(); ++r) ended(r, status);
    return *this;
  }
  Rehearsal& done(int rank, bool stopped = false) {
    return say(
        rank, {{"type", "done"}, {"stopped", stopped}, {"step", 5}, {"summary", {{"rank", rank}}}});
  }
  Rehearsal& all_done(bool stopped) {
    for (int r = 0; r < ranks(); ++r) done(r, stopped).ended(r, {});
    return *this;
  }
  Rehearsal& agents_leave() {
    for (int n = 0; n < nodes_; ++n) feed(AgentLost{n, "it closed the connection"});
    return *this;
  }
  int count(const std::string& type) const {
    int n = 0;
    for (const auto& [node, message] : sent) n += message["type"] == type ? 1 : 0;
    return n;
  }
  int ranks() const { return 2 * nodes_; }
  Phase phase() const { return state_.phase(); }
  RunOutcome outcome() const { return state_.outcome(); }

  std::vector<std::pair<int, Json>> sent;
  std::vector<Json> events;
  std::vector<Json> steps;
  bool finished = false;

 private:
  static ControllerSetup setup(int nodes) {
    ControllerSetup setup;
    for (int n = 0; n < nodes; ++n) {
      setup.nodes.push_back("n" + std::to_string(n));
      for (int d = 0; d < 2; ++d) {
        setup.rank_names.push_back("r" + std::to_string(2 * n + d));
        setup.node_of_rank.push_back(n);
      }
    }
    setup.run_directory = "/run";
    return setup;
  }
  int nodes_;
  ControllerState state_;
  double now_ = 0;
};

constexpr ExitStatus kOurKill{.code = 0, .signal = SIGKILL, .by_us = true};

TEST(ControllerState, AGoodRunPassesThroughItsPhases) {
  Rehearsal run;
  EXPECT_EQ(run.phase(), Phase::starting);
  run.feed(AgentConnected{1, 101});
  EXPECT_EQ(run.phase(), Phase::connecting);
  EXPECT_EQ(run.count("launch"), 0);
  run.feed(AgentConnected{0, 100});
  EXPECT_EQ(run.phase(), Phase::launching);
  ASSERT_EQ(run.count("launch"), 2);
  for (int r = 0; r < 3; ++r) run.say(r, {{"type", "started"}});
  EXPECT_EQ(run.phase(), Phase::launching);
  run.say(3, {{"type", "started"}});
  EXPECT_EQ(run.phase(), Phase::training);
  run.all_done(false);
  EXPECT_EQ(run.phase(), Phase::leaving);
  EXPECT_EQ(run.count("leave"), 2);
  run.agents_leave();
  EXPECT_EQ(run.phase(), Phase::finished);
  EXPECT_TRUE(run.finished);
  EXPECT_EQ(run.outcome().exit_code, 0);
  EXPECT_EQ(run.outcome().summary["rank"], 0);
}

TEST(ControllerState, LaunchTellsEveryAgentItsOwnRanks) {
  Rehearsal run;
  run.connect();
  for (const auto& [node, message] : run.sent) {
    if (message["type"] == "launch") {
      EXPECT_EQ(message["ranks"], Json({2 * node, 2 * node + 1}));
    }
  }
}

TEST(ControllerState, AMissingAgentIsBlamedAfterThirtySeconds) {
  Rehearsal run;
  run.tick(29.9);
  EXPECT_EQ(run.phase(), Phase::starting);
  run.tick(30.1);
  EXPECT_EQ(run.phase(), Phase::finished) << "nobody is there, so nobody is waited for";
  EXPECT_EQ(run.outcome().failure->subject, "the agent of n0");
}

TEST(ControllerState, StoppingBeforeLaunchLeavesAtOnce) {
  for (const bool one_connected : {false, true}) {
    Rehearsal run;
    if (one_connected) run.feed(AgentConnected{0, 100});
    run.feed(StopAsked{SIGINT});
    EXPECT_EQ(run.phase(), one_connected ? Phase::leaving : Phase::finished);
    run.tick(2);
    EXPECT_EQ(run.outcome().exit_code, 130);
  }
}

TEST(ControllerState, AFailureInAnyWorkingPhaseEndsTheRun) {
  for (const Phase phase : {Phase::launching, Phase::training, Phase::stopping}) {
    Rehearsal run;
    run.connect();
    if (phase != Phase::launching) run.train();
    if (phase == Phase::stopping) run.feed(StopAsked{SIGINT});
    ASSERT_EQ(run.phase(), phase);
    run.at(1).ended(2, {.code = 3});
    EXPECT_EQ(run.phase(), Phase::aborting);
    EXPECT_EQ(run.count("abort"), 2);
    for (const int r : {0, 1, 3}) run.ended(r, kOurKill);
    EXPECT_EQ(run.phase(), Phase::leaving);
    run.agents_leave();
    EXPECT_EQ(run.outcome().exit_code, 1);
    EXPECT_EQ(run.outcome().failure->rank, 2);
    EXPECT_EQ(run.outcome().failure->teardown.size(), 3U);
  }
}

// Such as data that no file matches: the others that follow it change nothing.
TEST(ControllerState, ARankThatCannotUseItsInputEndsTheRunAsBadInput) {
  for (const char* kind : {"bad_input", "failed"}) {
    Rehearsal run;
    run.connect();
    run.say(2, {{"type", "failed"}, {"kind", kind}, {"message", "no file matches"}});
    run.say(0, {{"type", "failed"}, {"kind", "peer_lost"}, {"message", "reset"}, {"peer", 2}});
    run.all_ended({.code = 1}).agents_leave();
    EXPECT_EQ(run.outcome().exit_code, std::string(kind) == "bad_input" ? 2 : 1);
    EXPECT_EQ(run.outcome().failure->rank, 2);
  }
}

TEST(ControllerState, ARankThatCannotBeKilledDelaysTheEndByOneAndAHalfSeconds) {
  Rehearsal run;
  run.connect().feed(AgentSaid{0, {{"type", "spawned"}, {"rank", 1}, {"pid", 4711}}});
  run.train().at(1).ended(2, {.code = 3});
  run.tick(2.4);
  EXPECT_EQ(run.phase(), Phase::aborting);
  run.tick(2.6);
  EXPECT_EQ(run.phase(), Phase::leaving);
  const auto left = std::find_if(run.events.begin(), run.events.end(),
                                 [](const Json& event) { return event["event"] == "rank_left"; });
  ASSERT_NE(left, run.events.end());
  EXPECT_EQ((*left)["rank"], 1);
  EXPECT_EQ((*left)["pid"], 4711);
  run.tick(3.7);
  EXPECT_EQ(run.phase(), Phase::finished);
}

TEST(ControllerState, OneSignalStopsTwoTerminateThreeKill) {
  Rehearsal run;
  run.train();
  run.feed(StopAsked{SIGTERM});
  EXPECT_EQ(run.phase(), Phase::stopping);
  EXPECT_EQ(run.count("stop"), 2);
  run.feed(StopAsked{SIGTERM});
  EXPECT_EQ(run.phase(), Phase::terminating);
  EXPECT_EQ(run.count("terminate"), 2);
  run.feed(StopAsked{SIGTERM});
  EXPECT_EQ(run.phase(), Phase::aborting);
  EXPECT_EQ(run.sent.back().second["grace_seconds"], 0);
  run.all_ended(kOurKill).agents_leave();
  EXPECT_EQ(run.outcome().exit_code, 143);
  EXPECT_FALSE(run.outcome().failure);
}

TEST(ControllerState, TerminationTurnsIntoKillAfterFiveSeconds) {
  Rehearsal run;
  run.train().feed(StopAsked{SIGINT}).feed(StopAsked{SIGINT});
  run.tick(4.9);
  EXPECT_EQ(run.phase(), Phase::terminating);
  run.tick(5.1);
  EXPECT_EQ(run.phase(), Phase::aborting);
}

TEST(ControllerState, AStoppedRunHasTheSignalsExitCodeAndItsCheckpoint) {
  Rehearsal run;
  run.train().feed(StopAsked{SIGINT});
  run.say(0, {{"type", "checkpoint"}, {"step", 5}, {"path", "/run/checkpoints/step-00000005"}});
  run.all_done(true).agents_leave();
  EXPECT_EQ(run.outcome().exit_code, 130);
  EXPECT_TRUE(run.outcome().stopped);
  EXPECT_EQ(run.outcome().checkpoint, "/run/checkpoints/step-00000005");
}

TEST(ControllerState, AStopThatCameAfterTheLastStepIsASuccess) {
  Rehearsal run;
  run.train().feed(StopAsked{SIGINT}).all_done(false).agents_leave();
  EXPECT_EQ(run.outcome().exit_code, 0);
}

TEST(ControllerState, AFailureStaysAFailureWhenTheUserIsImpatient) {
  Rehearsal run;
  run.train().ended(1, {.code = 0, .signal = SIGSEGV}).feed(StopAsked{SIGINT});
  EXPECT_EQ(run.phase(), Phase::aborting);
  for (const int r : {0, 2, 3}) run.ended(r, kOurKill);
  run.agents_leave();
  EXPECT_EQ(run.outcome().exit_code, 1);
  EXPECT_EQ(run.outcome().failure->rank, 1);
}

TEST(ControllerState, ASilentAgentIsSuspectedThenDead) {
  Rehearsal run;
  run.train();
  for (int tick = 0; tick < 199; ++tick) {
    const double now = tick / 20.0;
    run.at(now).feed(AgentSaid{1, {{"type", "alive"}}});
    run.tick(now);
    EXPECT_EQ(run.phase(), Phase::training) << now;
  }
  EXPECT_THAT(run.events, Contains(::testing::Truly([](const Json& e) {
                return e["event"] == "agent_suspected" && e["node"] == "n0";
              })));
  run.tick(10.01);
  EXPECT_EQ(run.phase(), Phase::aborting);
}

TEST(ControllerState, AControllerThatSleptBlamesNobody) {
  Rehearsal run;
  run.train().tick(0.5).tick(100);
  EXPECT_EQ(run.phase(), Phase::training);
}

TEST(ControllerState, TheVerdictWaitsForTheExitOfALostAgentButNoLongerThanTheGrace) {
  Rehearsal known(1);
  known.train().at(1).feed(AgentLost{0, "it closed the connection"});
  EXPECT_EQ(known.phase(), Phase::aborting);
  known.feed(AgentEnded{0, {.code = 0, .signal = SIGKILL}});
  EXPECT_EQ(known.phase(), Phase::finished);
  EXPECT_THAT(known.outcome().failure->cause, HasSubstr("killed by signal 9"));

  Rehearsal unknown(1);
  unknown.train().at(1).feed(AgentLost{0, "it closed the connection"}).tick(1.25);
  EXPECT_EQ(unknown.phase(), Phase::aborting);
  unknown.tick(1.35);
  EXPECT_EQ(unknown.phase(), Phase::finished);
}

TEST(ControllerState, TheStoreAnswersAtOnceLaterOrWithATimeout) {
  Rehearsal run;
  run.connect().sent.clear();
  run.say(0, {{"type", "get"}, {"id", 7}, {"key", "a"}, {"timeout_s", 5.0}});
  EXPECT_THAT(run.sent, IsEmpty());
  run.say(3, {{"type", "set"}, {"key", "a"}, {"value", "x"}});
  ASSERT_EQ(run.sent.size(), 1U);
  EXPECT_EQ(run.sent[0].first, 0);
  EXPECT_EQ(run.sent[0].second["message"], Json({{"type", "value"}, {"id", 7}, {"value", "x"}}));
  run.say(2, {{"type", "get"}, {"id", 1}, {"key", "a"}, {"timeout_s", 5.0}});
  EXPECT_EQ(run.sent.back().first, 1);
  run.say(2, {{"type", "get"}, {"id", 2}, {"key", "b"}, {"timeout_s", 5.0}});
  run.tick(5.1);
  EXPECT_TRUE(run.sent.back().second["message"].contains("error")) << run.sent.back().second;
  EXPECT_EQ(run.phase(), Phase::launching) << "a timeout is the rank's business";
}

TEST(ControllerState, AnAgentSpeaksOnlyForItsOwnRanks) {
  Rehearsal run;
  run.connect();
  const Json forged = {{"type", "rank"}, {"rank", 3}, {"message", {{"type", "started"}}}};
  EXPECT_THROW(run.feed(AgentSaid{0, forged}), Error);
  EXPECT_ANY_THROW(run.feed(AgentSaid{0, {{"type", "rank"}, {"rank", 99}}}));
  EXPECT_ANY_THROW(run.feed(AgentSaid{0, {{"type", "ended"}}}));
}

// Every order in which a killed rank and two ranks that lost it can be reported names the killed
// one.
TEST(ControllerState, ReportOrderDoesNotChangeTheCulprit) {
  std::vector<int> order = {0, 1, 2};
  do {
    Rehearsal run;
    run.train();
    for (const int what : order) {
      if (what == 0) {
        run.ended(0, {.code = 0, .signal = SIGKILL});
      } else {
        run.say(what, {{"type", "failed"}, {"kind", "peer_lost"}, {"message", "r0 is gone"}});
        run.ended(what, {.code = 1});
      }
    }
    run.ended(3, kOurKill).agents_leave();
    EXPECT_EQ(run.outcome().failure->rank, 0);
    EXPECT_EQ(run.outcome().failure->cascade.size(), 2U);
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST(ControllerState, ARankThatOthersLostIsNamedBeforeThem) {
  Rehearsal run;
  run.train();
  for (const int r : {0, 1, 3}) {
    run.say(r, {{"type", "failed"}, {"kind", "peer_lost"}, {"message", "reset"}, {"peer", 2}})
        .ended(r, {.code = 1});
  }
  run.ended(2, kOurKill).agents_leave();
  EXPECT_EQ(run.outcome().failure->rank, 2);
  EXPECT_EQ(run.outcome().failure->cascade.size(), 3U);
}

TEST(ControllerState, NonsenseFromARankIsItsFailureAndNotItsAgents) {
  const Json lost = {{"type", "failed"}, {"kind", "peer_lost"}, {"message", "reset"}, {"peer", 4}};
  Json below = lost;
  below["peer"] = -1;
  for (const Json& message : {lost, below, Json{{"type", "step"}}, Json{{"type", "busy"}}}) {
    Rehearsal run;
    run.train().say(1, message);
    for (const int r : {0, 1, 2, 3}) run.ended(r, kOurKill);
    run.agents_leave();
    EXPECT_EQ(run.outcome().failure->rank, 1) << message;
    EXPECT_THAT(run.outcome().failure->cause, HasSubstr("it talked nonsense")) << message;
  }
}

TEST(ControllerState, AControllerThatStoodStillIsBlamedForTheAgentsThatLeft) {
  Rehearsal run;
  run.train().at(0.5).say(0, {{"type", "started"}});
  run.at(9).feed(AgentLost{0, "it closed the connection"}).feed(AgentEnded{0, {.code = 1}});
  run.all_ended(kOurKill).agents_leave();
  EXPECT_EQ(run.outcome().failure->subject, "the controller");
  EXPECT_THAT(run.outcome().failure->cause, HasSubstr("stood still for 8 s"));
}

// A fact without a row in the table means nothing: in every phase, events that do not concern it
// leave it as it is.
TEST(ControllerState, LateEventsDoNotReviveAFinishedRun) {
  Rehearsal run;
  run.train().all_done(false).agents_leave();
  ASSERT_EQ(run.phase(), Phase::finished);
  run.feed(StopAsked{SIGINT})
      .feed(AgentLost{0, "again"})
      .feed(AgentEnded{1, {.code = 1}})
      .tick(1000);
  EXPECT_EQ(run.phase(), Phase::finished);
  EXPECT_EQ(run.outcome().exit_code, 0);
}

TEST(ControllerState, AThousandAgentsFailInOneThread) {
  Rehearsal run(1000);
  run.train();
  EXPECT_EQ(run.phase(), Phase::training);
  for (int r = 0; r < run.ranks(); ++r) {
    if (r != 777) {
      run.say(r, {{"type", "failed"}, {"kind", "peer_lost"}, {"message", "reset"}})
          .ended(r, {.code = 1});
    }
  }
  run.ended(777, {.code = 0, .signal = SIGBUS}).agents_leave();
  EXPECT_EQ(run.outcome().failure->rank, 777);
}

}  // namespace
}  // namespace trireme
