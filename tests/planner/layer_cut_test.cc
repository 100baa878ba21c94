#include "planner/layer_cut.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>

#include "topology/base/error.h"

namespace trireme {
namespace {

using Times = std::vector<PartTimes>;  // by pipeline rank

// Time of the slowest pipeline rank.
double worst_of(const std::vector<int>& layers, const std::vector<StagePlace>& places,
                const Times& times) {
  std::vector<double> ranks(times.size(), 0);
  for (size_t s = 0; s < layers.size(); ++s) {
    const auto rank = static_cast<size_t>(places[s].rank);
    ranks[rank] += layers[s] * times[rank].layer;
    if (s == 0) ranks[rank] += times[rank].embedding;
    if (s + 1 == layers.size()) ranks[rank] += times[rank].head;
  }
  return *std::max_element(ranks.begin(), ranks.end());
}

double worst_of(const std::vector<Stage>& stages, const std::vector<StagePlace>& places,
                const Times& times) {
  std::vector<int> layers;
  for (const Stage& stage : stages) layers.push_back(stage.layers);
  return worst_of(layers, places, times);
}

// Every way to cut.
double least_worst_rank(int layers, const std::vector<StagePlace>& places, const Times& times) {
  std::vector<int> cut(places.size(), 0);
  double least = 1e30;
  const std::function<void(size_t, int)> place = [&](size_t s, int left) {
    const int need = s == 0 || s + 1 == cut.size() ? 0 : 1;
    if (s + 1 == cut.size()) {
      cut[s] = left;
      least = std::min(least, worst_of(cut, places, times));
      return;
    }
    for (cut[s] = need; cut[s] <= left; ++cut[s]) place(s + 1, left - cut[s]);
  };
  place(0, layers);
  return least;
}

TEST(LayerCut, TheSlowestRankIsAsFastAsAnyCutAllows) {
  for (int pipeline = 1; pipeline <= 4; ++pipeline) {
    for (int chunks = 1; chunks <= 2; ++chunks) {
      for (int layers = std::max(1, fewest_layers(pipeline, chunks)); layers <= 9; ++layers) {
        for (const PartTimes& alike :
             {PartTimes{1, 0, 0}, PartTimes{1, 0.1, 2.5}, PartTimes{2, 3, 1}, PartTimes{1, 4, 7}}) {
          const auto places = loop_placement(pipeline, chunks);
          const Times times(static_cast<size_t>(pipeline), alike);
          EXPECT_NEAR(worst_of(cut_layers(layers, places, alike), places, times),
                      least_worst_rank(layers, places, times), 1e-9)
              << layers << " layers, p" << pipeline << " v" << chunks;
        }
      }
    }
  }
}

TEST(LayerCut, RanksOfDifferentSpeedGetWhatTheyCanTake) {
  std::mt19937 random(5);
  std::uniform_real_distribution<double> time(0.2, 3);
  for (int trial = 0; trial < 300; ++trial) {
    const int pipeline = static_cast<int>(1 + random() % 4);
    const bool v = random() % 2 == 0;
    const auto places = v ? v_placement(pipeline, 2) : loop_placement(pipeline, 1);
    const int layers = static_cast<int>(std::max<size_t>(1, places.size()) + random() % 5);
    Times times;
    for (int rank = 0; rank < pipeline; ++rank) {
      times.push_back({time(random), time(random), 2 * time(random)});
    }
    EXPECT_NEAR(worst_of(cut_layers(layers, places, times), places, times),
                least_worst_rank(layers, places, times), 1e-9)
        << layers << " layers, p" << pipeline << (v ? " V" : "");
  }
}

// Every way to cut that keeps the limits.
TEST(LayerCut, LimitsOfRanksAreKeptAtTheLeastLossOfTime) {
  std::mt19937 random(11);
  std::uniform_real_distribution<double> time(0.2, 3);
  int impossible = 0;
  for (int trial = 0; trial < 300; ++trial) {
    const int pipeline = static_cast<int>(1 + random() % 4);
    const auto places = loop_placement(pipeline, 1);
    const int layers = static_cast<int>(std::max<size_t>(1, places.size()) + random() % 5);
    Times times;
    std::vector<int> most;
    for (int rank = 0; rank < pipeline; ++rank) {
      times.push_back({time(random), time(random), 2 * time(random)});
      most.push_back(static_cast<int>(random() % 5));
    }
    // A rank beyond its limit takes endless time.
    std::vector<int> cut(places.size(), 0);
    double least = 1e30;
    const std::function<void(size_t, int)> place = [&](size_t s, int left) {
      const int need = s == 0 || s + 1 == cut.size() ? 0 : 1;
      for (cut[s] = need; cut[s] <= std::min(left, most[s]); ++cut[s]) {
        if (s + 1 < cut.size()) {
          place(s + 1, left - cut[s]);
        } else if (cut[s] == left) {
          least = std::min(least, worst_of(cut, places, times));
        }
      }
    };
    place(0, layers);
    const auto found = cut_layers_within(layers, places, times, most);
    EXPECT_EQ(found.has_value(), least < 1e30);
    if (!found) {
      ++impossible;
      continue;
    }
    EXPECT_NEAR(worst_of(*found, places, times), least, 1e-9);
    for (size_t s = 0; s < found->size(); ++s) EXPECT_LE((*found)[s].layers, most[s]);
  }
  EXPECT_GT(impossible, 50);
  EXPECT_LT(impossible, 250);
}

// In a time T a rank takes floor((T - embedding or head) / layer) layers; the least T in which all
// ranks together take 1,500 is found by halving.
TEST(LayerCut, LongChainsAreCutExactly) {
  std::mt19937 random(7);
  std::uniform_real_distribution<double> time(0.5, 2);
  for (const int pipeline : {2, 7, 64, 500}) {
    const auto places = loop_placement(pipeline, 1);
    Times times;
    for (int rank = 0; rank < pipeline; ++rank) times.push_back({time(random), 3, 25});
    const auto enough = [&](double limit) {
      double layers = 0;
      for (size_t rank = 0; rank < times.size(); ++rank) {
        double left = limit;
        if (rank == 0) left -= times[rank].embedding;
        if (rank + 1 == times.size()) left -= times[rank].head;
        if (left < 0) return false;
        layers += std::floor(left / times[rank].layer);
      }
      return layers >= 1500;
    };
    double low = 0, high = 1e5;
    for (int halving = 0; halving < 100; ++halving) {
      const double middle = (low + high) / 2;
      (enough(middle) ? high : low) = middle;
    }
    EXPECT_NEAR(worst_of(cut_layers(1500, places, times), places, times), high, 1e-6) << pipeline;
  }
}

TEST(LayerCut, StagesCoverEveryLayerOnceInOrder) {
  const std::vector<Stage> stages = cut_layers(13, loop_placement(3, 2), PartTimes{1, 0.5, 2});
  int next = 0;
  for (size_t s = 0; s < stages.size(); ++s) {
    EXPECT_EQ(stages[s].first_layer, next);
    EXPECT_EQ(stages[s].pipeline_rank, static_cast<int>(s) % 3);
    EXPECT_EQ(stages[s].chunk, static_cast<int>(s) / 3);
    next += stages[s].layers;
  }
  EXPECT_EQ(next, 13);
  EXPECT_TRUE(stages.front().embedding);
  EXPECT_TRUE(stages.back().head);
}

TEST(LayerCut, EvenWorkIsCutEvenly) {
  for (const Stage& stage : cut_layers(12, loop_placement(3, 2), PartTimes{1, 0, 0}))
    EXPECT_EQ(stage.layers, 2);
}

TEST(LayerCut, OnlyTheEndsMayLackLayers) {
  const std::vector<Stage> stages = cut_layers(2, loop_placement(4, 1), PartTimes{1, 0, 0});
  EXPECT_EQ(stages[0].layers + stages[3].layers, 0);
  EXPECT_THROW(cut_layers(1, loop_placement(4, 1), PartTimes{1, 0, 0}), Error);
}

// Rank 0 holds both ends of a V, so the embedding and the head leave it fewer layers: 12 layers and
// 4 of embedding and head on 2 ranks are 8 each, which is 4 layers on rank 0 and 8 on rank 1.
TEST(LayerCut, AVCountsBothEndsOnTheFirstRank) {
  const std::vector<Stage> stages = cut_layers(12, v_placement(2, 2), PartTimes{1, 2, 2});
  EXPECT_EQ(stages[0].layers + stages[3].layers, 4);
  EXPECT_EQ(stages[1].layers + stages[2].layers, 8);
  EXPECT_EQ(stages[3].pipeline_rank, 0);
  EXPECT_EQ(stages[3].first_layer, 10);
}

TEST(LayerCut, EvenCutsWeighNothing) {
  const auto layers = [](const std::vector<Stage>& stages) {
    std::vector<int> counts;
    for (const Stage& stage : stages) counts.push_back(stage.layers);
    return counts;
  };
  EXPECT_EQ(layers(even_cut(12, loop_placement(4, 1))), (std::vector<int>{3, 3, 3, 3}));
  EXPECT_EQ(layers(even_cut(10, loop_placement(4, 1))),
            (std::vector<int>{2, 3, 3, 2}));  // embedding and head
  EXPECT_EQ(layers(even_cut(13, loop_placement(4, 1))), (std::vector<int>{4, 3, 3, 3}));
  EXPECT_EQ(even_cut(8, loop_placement(2, 2))[3].first_layer, 6);
}

}  // namespace
}  // namespace trireme
