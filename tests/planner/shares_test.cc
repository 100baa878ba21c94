#include "planner/shares.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <random>
#include <set>
#include <utility>

namespace trireme {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

using SecondsOf = std::function<double(size_t set, int64_t micro_batches)>;

struct Found {
  Way way;
  double seconds = kNever;
  int asked = 0;  // how many numbers it took to find it
};

// Answers what is asked, as a search does: no more than that a number takes `below` or longer.
Found search(Shares shares, double below, const SecondsOf& seconds_of) {
  Found found;
  std::set<std::pair<size_t, int64_t>> known;  // by set and micro-batches
  while (const auto way = shares.next(below)) {
    bool all_known = true;
    double longest = 0;
    for (size_t set = 0; set < way->size(); ++set) {
      const int64_t number = (*way)[set];
      const double seconds = seconds_of(set, number);
      longest = std::max(longest, seconds);
      if (!known.emplace(set, number).second) continue;
      all_known = false;
      ++found.asked;
      shares.learn(set, number, seconds < below ? seconds : kNever, below);
    }
    if (!all_known) continue;
    found.way = *way;
    found.seconds = longest;
    break;
  }
  return found;
}

// Two sets of one replica that take at least 2 and 1 a micro-batch, of 1 to 298.
std::vector<Shares::Set> two_sets() {
  std::vector<Shares::Set> sets(2);
  for (int number = 1; number <= 298; ++number) {
    sets[0].seconds.push_back(2.0 * number);
    sets[1].seconds.push_back(number);
  }
  return sets;
}

// The second takes 20 longer than it may. 2a = 299 - a + 20 at a = 106.3: 107 take 214, 106 leave
// 193, which take 213.
double twenty_longer(size_t set, int64_t micro_batches) {
  const auto number = static_cast<double>(micro_batches);
  return set == 0 ? 2 * number : number + 20;
}

TEST(Shares, FewNumbersTellTheFastestWayWhereMoreTakeNoLess) {
  const Found found = search(Shares(299, two_sets(), 1), 1e9, twenty_longer);
  EXPECT_EQ(found.seconds, 213);
  EXPECT_THAT(found.way, testing::ElementsAre(106, 193));
  EXPECT_LE(found.asked, 8);
}

// 2a and 299 - a are below 213 for a of 87 to 106.
TEST(Shares, OtherwiseAllThatMayBeFasterAreAskedFor) {
  const Found found = search(Shares(299, two_sets(), std::nullopt), 1e9, twenty_longer);
  EXPECT_EQ(found.seconds, 213);
  EXPECT_GE(found.asked, 20);
}

TEST(Shares, WhatIsNotFasterIsNotFound) {
  EXPECT_TRUE(search(Shares(299, two_sets(), 1), 213, twenty_longer).way.empty());
  EXPECT_FALSE(search(Shares(299, two_sets(), 1), 213.5, twenty_longer).way.empty());
}

// Replicas in threes and twos, one micro-batch each or more: 4 are too few, 6 leave one over.
TEST(Shares, AllMicroBatchesAreShared) {
  const auto take_one = [](size_t, int64_t) { return 1.0; };
  for (const int64_t total : {4, 6}) {
    Shares shares(total, {{3, 1, {1, 1, 1}}, {2, 1, {1, 1, 1}}}, 1);
    EXPECT_FALSE(shares.next(kNever)) << total;
  }
  const Found found = search(Shares(13, {{3, 1, {1, 1, 1}}, {2, 1, {1, 1, 1}}}, 1), 9, take_one);
  EXPECT_THAT(found.way, testing::ElementsAre(3, 2));
}

// Against all ways: random sets whose steps exceed their bounds, by ever more or by anything.
class RandomShares : public testing::TestWithParam<bool> {};

TEST_P(RandomShares, TheFastestOfAllWaysIsFound) {
  const bool grows = GetParam();
  constexpr int64_t kTotal = 30;
  std::mt19937 random(1);
  const auto figure = [&](int below) {
    return static_cast<int>(random() % static_cast<unsigned>(below));
  };
  for (int round = 0; round < 400; ++round) {
    std::vector<Shares::Set> sets(2 + static_cast<size_t>(round % 3));
    std::vector<std::vector<double>> seconds(sets.size());
    for (size_t set = 0; set < sets.size(); ++set) {
      sets[set].replicas = 1 + figure(3);
      sets[set].fewest = 1 + figure(3);
      const double each = 1 + figure(9);
      double excess = 0;
      for (int64_t number = sets[set].fewest; number <= kTotal; ++number) {
        excess = grows ? excess + figure(4) : figure(20);
        sets[set].seconds.push_back(each * static_cast<double>(number));
        seconds[set].push_back(sets[set].seconds.back() + excess);
      }
    }
    double fastest = kNever;
    const std::function<void(size_t, int64_t, double)> share = [&](size_t set, int64_t left,
                                                                   double longest) {
      if (set == sets.size()) {
        if (left == 0) fastest = std::min(fastest, longest);
        return;
      }
      for (size_t more = 0; more < seconds[set].size(); ++more) {
        const int64_t taken = sets[set].replicas * (sets[set].fewest + static_cast<int64_t>(more));
        if (taken <= left) share(set + 1, left - taken, std::max(longest, seconds[set][more]));
      }
    };
    share(0, kTotal, 0);
    const auto seconds_of = [&](size_t set, int64_t number) {
      return seconds[set][static_cast<size_t>(number - sets[set].fewest)];
    };
    const double below = figure(2) == 0 ? 1e9 : fastest * 1.1 + 1;
    const auto from = grows ? std::optional<int64_t>(4) : std::nullopt;
    EXPECT_EQ(search(Shares(kTotal, sets, from), below, seconds_of).seconds, fastest)
        << "round " << round;
  }
}

INSTANTIATE_TEST_SUITE_P(All, RandomShares, testing::Bool(),
                         [](const auto& grows) { return grows.param ? "Growing" : "Any"; });

}  // namespace
}  // namespace trireme
