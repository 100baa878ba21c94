#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "topology/base/ids.h"

namespace trireme {

enum class Recompute { none, selective, full };

const char* name_of(Recompute recompute);
std::optional<Recompute> recompute_named(std::string_view name);
const std::vector<std::string>& recompute_names();

// Replicas side by side along the data axis that take equally many micro-batches in a step.
struct Share {
  int replicas = 0;
  int micro_batches = 0;
  bool operator==(const Share&) const = default;
};

// The degrees. tensor * data * pipeline ranks; each pipeline rank holds `chunks` stages.
struct Layout {
  int tensor = 1;
  int pipeline = 1;
  int data = 1;
  int chunks = 1;
  std::string schedule = "1f1b";
  int micro_batch = 1;    // samples
  int micro_batches = 1;  // per data replica and step: global_batch / (data * micro_batch)
  // Where replicas take more or fewer, because their devices are faster or slower, from the first
  // replica on; `micro_batches` is then that of the first share. Empty: all are alike.
  std::vector<Share> shares = {};
  bool sequence_parallel = false;
  Recompute recompute = Recompute::none;
  int recompute_ranks = 0;  // pipeline ranks that recompute, the first ones; 0: all
  int optimizer_sharding = 0;

  int ranks() const { return tensor * pipeline * data; }
  int stages() const { return pipeline * chunks; }
  // Evaluation ends with the forwards: no gradients, nothing to reduce or update.
  bool trains() const { return schedule != "forward-only"; }
  Recompute recompute_on(int pipeline_rank) const {
    return recompute_ranks == 0 || pipeline_rank < recompute_ranks ? recompute : Recompute::none;
  }
  // The share of a replica, 0 where all are alike; its micro-batches, and those of the replicas
  // before it, in a step.
  size_t share_of(int replica) const;
  int micro_batches_of(int replica) const;
  int micro_batches_before(int replica) const;
  bool operator==(const Layout&) const = default;
};

struct Coordinates {
  int tensor = 0;
  int data = 0;
  int pipeline = 0;
  bool operator==(const Coordinates&) const = default;
};

// All rank arithmetic: rank = tensor + T * (data + D * pipeline).
Rank rank_at(const Layout& layout, Coordinates at);
Coordinates coordinates_of(const Layout& layout, Rank rank);

// The ranks that differ from `rank` in one coordinate only, ascending, itself included.
std::vector<Rank> tensor_group(const Layout& layout, Rank rank);
std::vector<Rank> data_group(const Layout& layout, Rank rank);
std::vector<Rank> pipeline_group(const Layout& layout, Rank rank);

// The half-open range of `count` items that part `index` of `parts` owns: as even as can be, the
// first parts one larger.
struct Range {
  int begin = 0;
  int end = 0;
  int size() const { return end - begin; }
  bool operator==(const Range&) const = default;
};
Range split_evenly(int count, int parts, int index);

// "d0p1t4": how a rank's coordinates are written everywhere.
std::string coordinate_name(Coordinates at);

}  // namespace trireme
