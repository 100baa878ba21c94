#include "planner/layer_cut.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <queue>
#include <utility>

#include "topology/base/error.h"

namespace trireme {
namespace {

// Gives `layers` equal items to bins one by one, each to the bin that is least loaded.
// Since items are equal this minimises the largest load: a bin above the optimum would have taken
// its last item while some bin had room below it.
// Ties go to the bin that stands first in `order`.
void fill(std::vector<int>& count, const std::vector<double>& start, double item, int layers,
          const std::vector<size_t>& order) {
  using Load = std::pair<double, size_t>;  // of a bin, and its place in the order
  std::priority_queue<Load, std::vector<Load>, std::greater<>> lightest;
  for (size_t place = 0; place < order.size(); ++place) {
    lightest.emplace(start[order[place]] + count[order[place]] * item, place);
  }
  for (int left = layers; left > 0; --left) {
    const size_t place = lightest.top().second, bin = order[place];
    lightest.pop();
    lightest.emplace(start[bin] + ++count[bin] * item, place);
  }
}

}  // namespace

int fewest_layers(int pipeline, int chunks) {
  return std::max(0, pipeline * chunks - 2);
}

std::vector<Stage> cut_layers(int layers, int pipeline, int chunks, const PartTimes& times) {
  const int stages = pipeline * chunks;
  if (layers < fewest_layers(pipeline, chunks)) {
    throw Error(
        ErrorKind::bad_input,
        fmt::format("{} layers are too few for {} stages: all but the first (embedding) and the "
                    "last (head) need a layer",
                    layers, stages));
  }
  std::vector<Stage> result;
  for (int s = 0; s < stages; ++s) {
    result.push_back({s % pipeline, s / pipeline, 0, 0, s == 0, s == stages - 1});
  }
  const auto fixed_of = [&](const Stage& stage) {
    return (stage.embedding ? times.embedding : 0) + (stage.head ? times.head : 0);
  };
  // What each rank must hold, then the rest to whom it burdens least.
  std::vector<double> fixed(static_cast<size_t>(pipeline), 0);
  std::vector<int> count(static_cast<size_t>(pipeline), 0);
  int left = layers;
  for (Stage& stage : result) {
    const auto rank = static_cast<size_t>(stage.pipeline_rank);
    fixed[rank] += fixed_of(stage);
    stage.layers = stage.embedding || stage.head ? 0 : 1;
    count[rank] += stage.layers;
    left -= stage.layers;
  }
  const std::vector<int> least = count;
  std::vector<size_t> order(count.size());
  std::iota(order.rbegin(), order.rend(), size_t{0});
  fill(count, fixed, times.layer, left, order);
  // Within a rank, over its chunks.
  for (int rank = 0; rank < pipeline; ++rank) {
    std::vector<double> start;
    std::vector<int> held;
    for (int s = rank; s < stages; s += pipeline) {
      start.push_back(fixed_of(result[static_cast<size_t>(s)]));
      held.push_back(result[static_cast<size_t>(s)].layers);
    }
    const auto r = static_cast<size_t>(rank);
    std::vector<size_t> earlier_first(held.size());
    std::iota(earlier_first.begin(), earlier_first.end(), size_t{0});
    fill(held, start, times.layer, count[r] - least[r], earlier_first);
    for (size_t chunk = 0; chunk < held.size(); ++chunk) {
      result[chunk * static_cast<size_t>(pipeline) + r].layers = held[chunk];
    }
  }
  int first = 0;
  for (Stage& stage : result) {
    stage.first_layer = first;
    first += stage.layers;
  }
  return result;
}

}  // namespace trireme
