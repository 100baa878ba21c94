#pragma once

#include <optional>
#include <vector>

#include "planner/plan/plan.h"

namespace trireme {

// Time of one micro-batch, forward and backward, of the parts that a stage is made of; any unit.
struct PartTimes {
  double layer = 1;
  double embedding = 0;
  double head = 0;
};

// Cuts the layers, which are all alike, into consecutive stages that lie where `places` says (by
// stage; every rank up to the highest has one), the embedding on the first and the head on the last
// stage.
//
// Minimised exactly is the time of the slowest pipeline rank, all its chunks together: in the
// steady state every schedule repeats at that pace, and with one chunk it is the classic bottleneck
// of a chain partition. The layers of each rank are then spread over its chunks so that its slowest
// stage is as fast as it can be, because a chunk op is what neighbours wait for during fill and
// drain. Where ranks tie, the later gets the layer: it holds fewer micro-batches.
//
// Every stage holds a layer, the embedding or the head; fewer layers than that needs:
// Error(bad_input).
//
// `times`: by pipeline rank.
std::vector<Stage> cut_layers(int layers, const std::vector<StagePlace>& places,
                              const std::vector<PartTimes>& times);
// The same among the cuts in which rank r holds at most `most[r]` layers; nothing where there are
// none.
std::optional<std::vector<Stage>> cut_layers_within(int layers,
                                                    const std::vector<StagePlace>& places,
                                                    const std::vector<PartTimes>& times,
                                                    const std::vector<int>& most);
// With all pipeline ranks alike.
std::vector<Stage> cut_layers(int layers, const std::vector<StagePlace>& places,
                              const PartTimes& times);

// The cut of frameworks that do not weigh embedding and head: as many layers in every stage, or one
// less in the first and the last where only that divides; else the earlier stages have one more.
std::vector<Stage> even_cut(int layers, const std::vector<StagePlace>& places);

// Stages that need a layer of their own: all but the first and the last.
int fewest_layers(int pipeline, int chunks);

}  // namespace trireme
