#include "planner/layer_cut.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "topology/base/error.h"

namespace trireme {
namespace {

double stage_time(const PartTimes& times, int layers, bool embedding, bool head) {
  return layers * times.layer + (embedding ? times.embedding : 0) + (head ? times.head : 0);
}

struct Worst {
  double rank = 0, stage = 0;
};

Worst worst_of(const std::vector<int>& layers, int pipeline, const PartTimes& times) {
  std::vector<double> ranks(static_cast<size_t>(pipeline), 0);
  Worst worst;
  for (size_t s = 0; s < layers.size(); ++s) {
    const double time = stage_time(times, layers[s], s == 0, s + 1 == layers.size());
    worst.stage = std::max(worst.stage, time);
    ranks[s % ranks.size()] += time;
  }
  worst.rank = *std::max_element(ranks.begin(), ranks.end());
  return worst;
}

// Every way to cut.
double least_worst_rank(int layers, int pipeline, int chunks, const PartTimes& times) {
  const auto stages = static_cast<size_t>(pipeline) * static_cast<size_t>(chunks);
  std::vector<int> cut(stages, 0);
  double least = 1e30;
  const std::function<void(size_t, int)> place = [&](size_t s, int left) {
    const int need = s == 0 || s + 1 == stages ? 0 : 1;
    if (s + 1 == stages) {
      cut[s] = left;
      least = std::min(least, worst_of(cut, pipeline, times).rank);
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
        for (const PartTimes& times :
             {PartTimes{1, 0, 0}, PartTimes{1, 0.1, 2.5}, PartTimes{2, 3, 1}, PartTimes{1, 4, 7}}) {
          const std::vector<Stage> stages =
              cut_layers(layers, loop_placement(pipeline, chunks), times);
          std::vector<int> cut;
          for (const Stage& stage : stages) cut.push_back(stage.layers);
          EXPECT_NEAR(worst_of(cut, pipeline, times).rank,
                      least_worst_rank(layers, pipeline, chunks, times), 1e-9)
              << layers << " layers, p" << pipeline << " v" << chunks;
        }
      }
    }
  }
}

TEST(LayerCut, StagesCoverEveryLayerOnceInOrder) {
  const std::vector<Stage> stages = cut_layers(13, loop_placement(3, 2), {1, 0.5, 2});
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
  for (const Stage& stage : cut_layers(12, loop_placement(3, 2), {1, 0, 0}))
    EXPECT_EQ(stage.layers, 2);
}

TEST(LayerCut, OnlyTheEndsMayLackLayers) {
  const std::vector<Stage> stages = cut_layers(2, loop_placement(4, 1), {1, 0, 0});
  EXPECT_EQ(stages[0].layers + stages[3].layers, 0);
  EXPECT_THROW(cut_layers(1, loop_placement(4, 1), {1, 0, 0}), Error);
}

// Rank 0 holds both ends of a V, so the embedding and the head leave it fewer layers: 12 layers and
// 4 of embedding and head on 2 ranks are 8 each, which is 4 layers on rank 0 and 8 on rank 1.
TEST(LayerCut, AVCountsBothEndsOnTheFirstRank) {
  const std::vector<Stage> stages = cut_layers(12, v_placement(2, 2), {1, 2, 2});
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
