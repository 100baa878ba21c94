#include "launcher/postmortem.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <functional>
#include <numeric>

namespace trireme {
namespace {

using ::testing::HasSubstr;

using Report = std::function<void(Postmortem&)>;

Postmortem four_ranks() {
  return {{"r0", "r1", "r2", "r3"}, {"n0", "n0", "n1", "n1"}};
}

RankEnd end_of(const ExitStatus& status, double silent = 0) {
  return {.status = status, .silent_seconds = silent, .doing = nullptr, .log_tail = {}};
}
Report ended(int rank, const ExitStatus& status, double silent = 0) {
  return [=](Postmortem& p) { p.rank_ended(rank, end_of(status, silent)); };
}
Report said(int rank, const char* kind) {
  return [=](Postmortem& p) {
    p.rank_said_failed(rank, kind, std::string("message of kind ") + kind);
  };
}

Report lost(int rank, int peer) {
  return [=](Postmortem& p) { p.rank_said_failed(rank, "peer_lost", "connection reset", peer); };
}

constexpr ExitStatus kKilled{.code = 0, .signal = SIGKILL};
constexpr ExitStatus kOurKill{.code = 0, .signal = SIGKILL, .by_us = true};
constexpr ExitStatus kOne{.code = 1};

struct Case {
  const char* name;
  std::vector<Report> reports;  // tried in every order
  std::string subject;
  std::string cause;
};

// Rows that must come out the same whatever the order of arrival.
const std::vector<Case>& cases() {
  static const std::vector<Case> kCases = {
      {"a signal beats lost peers",
       {ended(2, kKilled), said(0, "peer_lost"), ended(0, kOne), said(1, "peer_lost"),
        ended(3, kOurKill)},
       "r2",
       "killed by signal 9 (SIGKILL), not sent by trireme"},
      {"an own error beats lost peers",
       {said(1, "failed"), ended(1, kOne), said(0, "peer_lost"), ended(0, kOne),
        ended(2, kOurKill)},
       "r1",
       "message of kind failed"},
      {"an own exit code beats lost peers",
       {ended(3, {.code = 3}), said(0, "peer_lost"), ended(0, kOne)},
       "r3",
       "exited with code 3"},
      {"leaving early beats lost peers",
       {ended(0, {}), said(1, "peer_lost"), ended(1, kOne), said(2, "peer_lost")},
       "r0",
       "exited with code 0 before its work was done"},
      {"a hung rank beats those that gave up on it",
       {[](Postmortem& p) { p.rank_hung(1, 10.2, nullptr); }, said(0, "peer_lost"), ended(0, kOne),
        ended(1, kOurKill, 10.5)},
       "r1",
       "stopped answering: silent for 10"},
      {"a rank that was silent when ended beats lost peers",
       {ended(3, kOurKill, 4), said(0, "peer_lost"), ended(0, kOne), ended(1, kOurKill, 0.5)},
       "r3",
       "stopped answering: silent for 4.0 s"},
      {"a rank that others lost beats those that lost it",
       {lost(0, 2), ended(0, kOne), lost(1, 2), ended(1, kOne), ended(2, kOurKill, 0.3)},
       "r2",
       "was lost by r0 r1; killed by signal 9 (SIGKILL)"},
      {"a loss is followed to its end: r3 lost r0, which had left because it lost r2",
       {lost(3, 0), ended(3, kOne), lost(0, 2), ended(0, kOne), ended(2, kOurKill)},
       "r2",
       "was lost by r0"},
      {"a rank of which nothing is ever heard",
       {lost(0, 3), ended(0, kOne), lost(1, 3), ended(1, kOne), ended(2, kOurKill)},
       "r3",
       "was lost by r0 r1; its end was not seen"},
      {"a signal beats what others say they lost",
       {lost(0, 1), ended(0, kOne), ended(2, kKilled), ended(1, kOurKill)},
       "r2",
       "killed by signal 9"},
      {"a lost agent beats lost peers",
       {[](Postmortem& p) { p.agent_failed("n1", "went away"); }, said(0, "peer_lost"),
        ended(0, kOne), said(1, "peer_lost")},
       "the agent of n1",
       "went away"},
  };
  return kCases;
}

TEST(Postmortem, NamesTheFirstCauseInEveryOrderOfReports) {
  for (const Case& row : cases()) {
    std::vector<size_t> order(row.reports.size());
    std::iota(order.begin(), order.end(), 0U);
    do {
      Postmortem postmortem = four_ranks();
      for (const size_t i : order) row.reports[i](postmortem);
      ASSERT_TRUE(postmortem.something_failed());
      const Failure failure = postmortem.verdict({"/run"});
      ASSERT_EQ(failure.subject, row.subject) << row.name;
      ASSERT_THAT(failure.cause, HasSubstr(row.cause)) << row.name;
    } while (std::next_permutation(order.begin(), order.end()));
  }
}

TEST(Postmortem, AmongEqualsTheFirstHeardOfIsNamed) {
  for (const int first : {1, 2}) {
    Postmortem postmortem = four_ranks();
    ended(first, kKilled)(postmortem);
    ended(3 - first, kKilled)(postmortem);
    EXPECT_EQ(postmortem.verdict({""}).rank, first);
  }
  Postmortem only_lost = four_ranks();
  said(2, "peer_lost")(only_lost);
  said(1, "peer_lost")(only_lost);
  EXPECT_EQ(only_lost.verdict({""}).rank, 2);
}

TEST(Postmortem, RanksThatLostEachOtherAreNamedByWhoSpokeFirst) {
  for (const int first : {0, 1}) {
    Postmortem postmortem = four_ranks();
    lost(first, 1 - first)(postmortem);
    lost(1 - first, first)(postmortem);
    EXPECT_EQ(postmortem.verdict({""}).rank, first);
  }
}

TEST(Postmortem, ARankThatWasDoneIsNotMissed) {
  Postmortem postmortem = four_ranks();
  postmortem.rank_done(2);
  ended(2, {})(postmortem);
  lost(1, 2)(postmortem);
  EXPECT_EQ(postmortem.verdict({""}).rank, 1);
}

TEST(Postmortem, NothingHasFailedWhileRanksFinishOrAreEndedByUs) {
  Postmortem postmortem = four_ranks();
  EXPECT_FALSE(postmortem.something_failed());
  postmortem.rank_done(0);
  ended(0, {})(postmortem);
  ended(1, kOurKill)(postmortem);
  EXPECT_FALSE(postmortem.something_failed());
  ended(2, {})(postmortem);
  EXPECT_TRUE(postmortem.something_failed()) << "r2 left before it was done";
}

TEST(Postmortem, ARankThatIsDoneAndThenCrashesFails) {
  Postmortem postmortem = four_ranks();
  postmortem.rank_done(0);
  ended(0, {.code = 0, .signal = SIGSEGV})(postmortem);
  EXPECT_TRUE(postmortem.something_failed());
}

TEST(Postmortem, TellsCauseCascadeAndTeardownApart) {
  Postmortem postmortem = four_ranks();
  said(0, "peer_lost")(postmortem);
  ended(1, kKilled)(postmortem);
  ended(0, kOne)(postmortem);
  ended(2, kOurKill)(postmortem);
  postmortem.rank_done(3);
  ended(3, {})(postmortem);
  const Failure failure = postmortem.verdict({"/run"});
  EXPECT_EQ(failure.rank, 1);
  EXPECT_EQ(failure.node, "n0");
  EXPECT_EQ(failure.log, "/run/logs/rank-00001.log");
  ASSERT_EQ(failure.cascade.size(), 1U);
  EXPECT_THAT(failure.cascade[0], HasSubstr("r0: message of kind peer_lost"));
  EXPECT_EQ(failure.teardown, std::vector<std::string>{"r2"});
}

TEST(Postmortem, AnAgentsExitIsAddedToWhatWasSaidOfIt) {
  Postmortem postmortem = four_ranks();
  postmortem.agent_failed("n1", "went away");
  postmortem.agent_ended("n1", kKilled);
  EXPECT_THAT(postmortem.verdict({""}).cause,
              HasSubstr("went away; its process was killed by signal 9"));
}

TEST(Postmortem, TheLastLinesNameTheCulpritAndWhatItDid) {
  Postmortem postmortem = four_ranks();
  RankEnd end = end_of(kKilled);
  end.doing = {{"doing", "receiving"}, {"step", 12},       {"op", "3B7"}, {"kind", "B"},
               {"stage", 3},           {"micro_batch", 7}, {"peer", 5}};
  end.log_tail = {"loss is 3.2"};
  postmortem.rank_ended(2, end);
  const std::string text = to_text(postmortem.verdict({"run"}));
  EXPECT_THAT(text, HasSubstr("  | loss is 3.2\n"));
  EXPECT_THAT(text,
              HasSubstr("the run failed: r2 killed by signal 9 (SIGKILL), not sent by trireme"));
  EXPECT_TRUE(text.ends_with(
      "it was in step 12, receiving with r5, op 3B7 (backward of stage 3 on micro-batch 7)\n"))
      << text;
}

}  // namespace
}  // namespace trireme
