#include "planner/layer_cut.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <numeric>
#include <queue>
#include <span>
#include <utility>

#include "planner/plan/layout.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

// Where all bins start below it; else nothing is below the result.
double level_of(const std::vector<int>& count, const std::vector<double>& start,
                const std::vector<double>& item, int layers) {
  double items = layers, per_time = 0, highest = 0;
  for (size_t bin = 0; bin < start.size(); ++bin) {
    const double now = start[bin] + count[bin] * item[bin];
    highest = std::max(highest, now);
    items += now / item[bin];
    per_time += 1 / item[bin];
  }
  const double level = items / per_time;
  return highest < level ? level : 0;
}

// Gives every bin the items that end safely below the level; returns how many these are.
int fill_below(double level, std::vector<int>& count, const std::vector<double>& start,
               const std::vector<double>& item, const std::vector<int>& room) {
  if (level <= 0) return 0;
  constexpr double kSafely = 1 - 1e-9;
  int given = 0;
  for (size_t bin = 0; bin < start.size(); ++bin) {
    const auto below = static_cast<int>((level * kSafely - start[bin]) / item[bin]);
    const int more = std::clamp(below - count[bin], 0, room[bin] - count[bin]);
    count[bin] += more;
    given += more;
  }
  return given;
}

// Gives `layers` items to bins one by one, each to the bin that is least loaded with it; an item
// takes `item` in a bin, which has room for so many. Ties go to the bin that stands first in
// `order`. Since the items are alike this minimises the largest load: a bin above the optimum would
// have taken its last item while some bin had room for it below.
//
// What the least loaded bins would get anyhow is given at once: all items that end below the level
// to which as much liquid would fill the bins.
void fill(std::vector<int>& count, const std::vector<double>& start,
          const std::vector<double>& item, const std::vector<int>& room, int layers,
          const std::vector<size_t>& order) {
  layers -= fill_below(level_of(count, start, item, layers), count, start, item, room);
  using Load =
      std::pair<double, size_t>;  // of a bin with one item more, and its place in the order
  std::priority_queue<Load, std::vector<Load>, std::greater<>> lightest;
  const auto add = [&](size_t place) {
    const size_t bin = order[place];
    if (count[bin] >= room[bin]) return;
    lightest.emplace(start[bin] + (count[bin] + 1) * item[bin], place);
  };
  for (size_t place = 0; place < order.size(); ++place) add(place);
  for (int left = layers; left > 0; --left) {
    const size_t place = lightest.top().second;
    lightest.pop();
    ++count[order[place]];
    add(place);
  }
}

double fixed_time(const Stage& stage, const PartTimes& times) {
  return (stage.embedding ? times.embedding : 0) + (stage.head ? times.head : 0);
}

// The stages, each with the layers that it cannot do without.
std::vector<Stage> least_stages(const std::vector<StagePlace>& places) {
  std::vector<Stage> result;
  result.reserve(places.size());
  for (size_t s = 0; s < places.size(); ++s) {
    const bool first = s == 0, last = s + 1 == places.size();
    result.push_back({places[s].rank, places[s].chunk, 0, first || last ? 0 : 1, first, last});
  }
  return result;
}

// How many of `layers` each rank takes beyond those that its stages already hold; nothing where
// they have no room for all.
std::optional<std::vector<int>> layers_of_ranks(const std::vector<Stage>& stages, int pipeline,
                                                int layers, const std::vector<PartTimes>& times,
                                                const std::vector<int>& most) {
  const auto ranks = static_cast<size_t>(pipeline);
  std::vector<double> start(ranks, 0), item;
  std::vector<int> room = most;
  for (const PartTimes& of_rank : times) item.push_back(of_rank.layer);
  for (const Stage& stage : stages) {
    const auto rank = static_cast<size_t>(stage.pipeline_rank);
    start[rank] += fixed_time(stage, times[rank]) + stage.layers * times[rank].layer;
    room[rank] -= stage.layers;
  }
  int64_t all = 0;
  for (const int of_rank : room) {
    if (of_rank < 0) return std::nullopt;
    all += of_rank;
  }
  if (all < layers) return std::nullopt;
  std::vector<size_t> later_first(ranks);
  std::iota(later_first.rbegin(), later_first.rend(), size_t{0});
  std::vector<int> count(ranks, 0);
  fill(count, start, item, room, layers, later_first);
  return count;
}

// Spreads a rank's further layers over its stages `own`: evenly, where they are alike.
void spread(std::vector<Stage>& stages, std::span<const size_t> own, int layers,
            const PartTimes& times) {
  const bool alike = std::none_of(own.begin(), own.end(),
                                  [&](size_t s) { return stages[s].embedding || stages[s].head; });
  if (alike) {
    const auto chunks = static_cast<int>(own.size());
    for (int chunk = 0; chunk < chunks; ++chunk) {
      stages[own[static_cast<size_t>(chunk)]].layers += split_evenly(layers, chunks, chunk).size();
    }
    return;
  }
  std::vector<double> start;
  std::vector<int> held;
  for (const size_t s : own) {
    start.push_back(fixed_time(stages[s], times));
    held.push_back(stages[s].layers);
  }
  std::vector<size_t> earlier_first(held.size());
  std::iota(earlier_first.begin(), earlier_first.end(), size_t{0});
  fill(held, start, std::vector<double>(held.size(), times.layer),
       std::vector<int>(held.size(), std::numeric_limits<int>::max()), layers, earlier_first);
  for (size_t chunk = 0; chunk < held.size(); ++chunk) stages[own[chunk]].layers = held[chunk];
}

// The stages of each rank, in order.
class StagesByRank {
 public:
  explicit StagesByRank(const std::vector<StagePlace>& places) {
    int ranks = 0;
    for (const StagePlace& place : places) ranks = std::max(ranks, place.rank + 1);
    begin_.assign(static_cast<size_t>(ranks) + 1, 0);
    for (const StagePlace& place : places) ++begin_[static_cast<size_t>(place.rank) + 1];
    std::partial_sum(begin_.begin(), begin_.end(), begin_.begin());
    stages_.resize(places.size());
    std::vector<size_t> next = begin_;
    for (size_t s = 0; s < places.size(); ++s) {
      stages_[next[static_cast<size_t>(places[s].rank)]++] = s;
    }
  }

  size_t ranks() const { return begin_.size() - 1; }
  std::span<const size_t> of(size_t rank) const {
    return {stages_.data() + begin_[rank], begin_[rank + 1] - begin_[rank]};
  }

 private:
  std::vector<size_t> begin_, stages_;
};

void number_layers(std::vector<Stage>& stages) {
  int first = 0;
  for (Stage& stage : stages) {
    stage.first_layer = first;
    first += stage.layers;
  }
}

}  // namespace

int fewest_layers(int pipeline, int chunks) {
  return std::max(0, pipeline * chunks - 2);
}

std::optional<std::vector<Stage>> cut_layers_within(int layers,
                                                    const std::vector<StagePlace>& places,
                                                    const std::vector<PartTimes>& times,
                                                    const std::vector<int>& most) {
  const int count = static_cast<int>(places.size());
  const int least = std::max(0, count - 2);
  if (layers < least) {
    throw Error(
        ErrorKind::bad_input,
        fmt::format("{} layers are too few for {} stages: all but the first (embedding) and "
                    "the last (head) need a layer",
                    layers, count));
  }
  std::vector<Stage> stages = least_stages(places);
  const StagesByRank own(places);
  const auto more =
      layers_of_ranks(stages, static_cast<int>(own.ranks()), layers - least, times, most);
  if (!more) return std::nullopt;
  for (size_t rank = 0; rank < own.ranks(); ++rank) {
    spread(stages, own.of(rank), (*more)[rank], times[rank]);
  }
  number_layers(stages);
  return stages;
}

std::vector<Stage> cut_layers(int layers, const std::vector<StagePlace>& places,
                              const std::vector<PartTimes>& times) {
  return *cut_layers_within(layers, places, times, std::vector<int>(times.size(), layers));
}

std::vector<Stage> cut_layers(int layers, const std::vector<StagePlace>& places,
                              const PartTimes& times) {
  int pipeline = 0;
  for (const StagePlace& place : places) pipeline = std::max(pipeline, place.rank + 1);
  return cut_layers(layers, places, std::vector<PartTimes>(static_cast<size_t>(pipeline), times));
}

std::vector<Stage> even_cut(int layers, const std::vector<StagePlace>& places) {
  const int count = static_cast<int>(places.size());
  if (layers < count) return cut_layers(layers, places, PartTimes{});
  std::vector<Stage> stages = least_stages(places);
  const bool short_ends = count > 1 && layers % count != 0 && (layers + 2) % count == 0;
  const int spread = short_ends ? layers + 2 : layers;
  for (int s = 0; s < count; ++s) {
    const bool end = s == 0 || s == count - 1;
    stages[static_cast<size_t>(s)].layers =
        spread / count + (s < spread % count ? 1 : 0) - (short_ends && end ? 1 : 0);
  }
  number_layers(stages);
  return stages;
}

}  // namespace trireme
