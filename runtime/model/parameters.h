#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "planner/plan/layout.h"
#include "planner/plan/model.h"
#include "planner/plan/plan.h"
#include "runtime/device/device.h"

namespace trireme {

// How one parameter lies over the tensor ranks. Over data ranks every parameter is replicated; over
// pipeline ranks each belongs to one stage, but for a tied embedding, which the last stage holds a
// copy of.
enum class Sharding {
  replicated,  // the same on every tensor rank, with the same gradient on every tensor rank
  rows,        // each tensor rank has a range of rows
  columns      // each tensor rank has a range of columns
};

enum class Initial { normal, zero, one };

// What everything that must treat parameters differently is derived from: gradient reduction, norm
// weights, clipping, weight decay, tied embeddings, checkpoints.
struct ParameterSpec {
  std::string name;  // "layers.3.attention.query.weight", the same at every layout
  int rows = 0;      // global shape; a vector of n is [n, 1]
  int columns = 1;
  bool vector = false;
  Sharding sharding = Sharding::replicated;
  Range local;  // this rank's rows (or columns); everything when replicated
  Initial initial = Initial::normal;
  double initial_std = 0;
  bool decays = false;     // weight decay applies
  bool tied_copy = false;  // the last stage's copy of the token embedding: not counted, not saved
  int unit = 0;            // which part of the stage computes its gradient; see StageParameters
  size_t offset = 0;       // of its local part in the stage's flat memory, in floats

  int local_rows() const { return sharding == Sharding::rows ? local.size() : rows; }
  int local_columns() const { return sharding == Sharding::columns ? local.size() : columns; }
  size_t local_count() const { return static_cast<size_t>(local_rows()) * local_columns(); }
};

// Query and key-value heads of one tensor rank: whole key-value groups, as even as can be.
struct HeadShare {
  Range query;
  Range kv;
};
HeadShare head_share(const Model& model, int tensor, int index);

// Floats [begin, end) of a flat memory.
struct FlatRange {
  size_t begin = 0;
  size_t end = 0;
  size_t size() const { return end - begin; }
};

// The parameters of one stage on one tensor rank, side by side in one flat memory so that weights,
// gradients and optimizer state are arrays with the same offsets. Query, key and value weights (and
// gate and up) are neighbours: a layer multiplies with them as one matrix.
//
// A stage consists of units, whose gradients become complete one after the other in the backward
// pass, last unit first: unit 0 the embedding (if any), then one unit per layer, then the head (if
// any).
struct StageParameters {
  std::vector<ParameterSpec> specs;  // in flat order
  int units = 0;
  size_t weight_count = 0;  // floats of weights
  size_t gradient_count =
      0;  // floats of gradients: more where embedding and tied head share one weight
  size_t tied_gradient = 0;            // offset of the head's share of that gradient; 0: none
  std::vector<FlatRange> unit_ranges;  // floats of the flat gradient that each unit completes

  const ParameterSpec& find(const std::string& name) const;
};

StageParameters stage_parameters(const Model& model, const Stage& stage, int tensor, int index);

// Every parameter of the model with global shapes, in canonical order, tied copies left out.
std::vector<ParameterSpec> all_parameters(const Model& model);

// Random initial values, the same for a given seed at every layout.
void initialize(const ParameterSpec& spec, uint64_t seed, float* local_values);

}  // namespace trireme
