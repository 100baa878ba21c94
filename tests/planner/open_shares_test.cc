#include "planner/open_shares.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <random>

namespace trireme {
namespace {

using testing::ElementsAre;

constexpr double kNever = std::numeric_limits<double>::infinity();

// 2a + 3b + c = 11 with 1 to 3, 1 to 2 and 1 to 4.
TEST(OpenShares, AllWaysToShareAreListed) {
  EXPECT_THAT(ways_to_share(11, {{0, 2}, {1, 3}, {2, 1}}, {3, 2, 4}),
              ElementsAre(Way{1, 2, 3}, Way{2, 1, 4}, Way{2, 2, 1}, Way{3, 1, 2}));
  EXPECT_THAT(ways_to_share(4, {{0, 2}, {1, 3}}, {9, 9}), ElementsAre());
}

// Two sets that take 2 and 1 a micro-batch, at least; the second takes 20 longer.
OpenShares two_sets(std::optional<int64_t> grows_from, int64_t total) {
  OpenShares shares(grows_from);
  for (const Way& way : ways_to_share(total, {{0, 1}, {1, 1}}, {total, total})) {
    const double first = 2.0 * static_cast<double>(way[0]);
    const double second = static_cast<double>(way[1]);
    shares.add({way, {first, second}, std::max(first, second)});
  }
  return shares;
}

int tries_until_none_is_left(OpenShares& shares, double& least) {
  int tries = 0;
  while (const auto open = shares.next()) {
    ++tries;
    const std::vector<double> seconds = {open->at_least[0], open->at_least[1] + 20};
    least = std::min(least, std::max(seconds[0], seconds[1]));
    shares.learn(*open, seconds, least);
  }
  return tries;
}

// With 299 to share, 2a = 299 - a + 20 at a = 106.3: 107 take 214, 106 leave 193 + 20 = 213.
TEST(OpenShares, FewTriesFindTheFastestWhereMoreTakeNoLess) {
  OpenShares shares = two_sets(1, 299);
  double least = kNever;
  EXPECT_LE(tries_until_none_is_left(shares, least), 4);
  EXPECT_EQ(least, 213);
}

// All whose bound is below: 2a < 213 and 299 - a < 213 for a of 87 to 106, but for those that were
// dropped on the way.
TEST(OpenShares, OtherwiseAllThatMayBeFasterAreTried) {
  OpenShares shares = two_sets(std::nullopt, 299);
  double least = kNever;
  EXPECT_GE(tries_until_none_is_left(shares, least), 20);
  EXPECT_EQ(least, 213);
}

// Sets of random slopes and excesses that grow: the same as trying all.
TEST(OpenShares, NothingFasterIsDropped) {
  std::mt19937 random(1);
  std::uniform_int_distribution<int> figure(0, 9);
  for (int round = 0; round < 300; ++round) {
    const size_t sets = 2 + static_cast<size_t>(round % 2);
    std::vector<ReplicaSet> replicas;
    std::vector<std::vector<double>> excess(sets, std::vector<double>(60, 0));
    std::vector<double> each;
    for (size_t set = 0; set < sets; ++set) {
      replicas.push_back({set, 1 + figure(random) % 3});
      each.push_back(1 + figure(random));
      for (size_t n = 1; n < 60; ++n) excess[set][n] = excess[set][n - 1] + figure(random) % 4;
    }
    OpenShares shares(5);
    double fastest = kNever;
    for (const Way& way : ways_to_share(40, replicas, Way(sets, 40))) {
      OpenShares::Open open{way, {}, 0};
      double seconds = 0;
      for (size_t set = 0; set < sets; ++set) {
        open.at_least.push_back(each[set] * static_cast<double>(way[set]));
        open.bound = std::max(open.bound, open.at_least.back());
        seconds =
            std::max(seconds, open.at_least.back() + excess[set][static_cast<size_t>(way[set])]);
      }
      fastest = std::min(fastest, seconds);
      shares.add(std::move(open));
    }
    double least = kNever;
    while (const auto open = shares.next()) {
      std::vector<double> seconds;
      double longest = 0;
      for (size_t set = 0; set < sets; ++set) {
        seconds.push_back(open->at_least[set] + excess[set][static_cast<size_t>(open->way[set])]);
        longest = std::max(longest, seconds.back());
        if (seconds.back() > least) seconds.back() = kNever;  // no more is told
      }
      least = std::min(least, longest);
      shares.learn(*open, seconds, least);
    }
    EXPECT_EQ(least, fastest) << "round " << round;
  }
}

}  // namespace
}  // namespace trireme
