#pragma once

#include <optional>

#include "runtime/comm/transport.h"
#include "runtime/device/device.h"
#include "runtime/model/parameters.h"

namespace trireme {

// One stage's gradients on this rank, at the offsets of `parameters`.
struct StageGradients {
  const StageParameters* parameters = nullptr;
  float* gradients = nullptr;
};

// A tied embedding has two gradients, one from the stage with the embedding and one from the stage
// with the head. Both become their sum. `first` and `last` are those stages as far as this rank has
// them (the same one where one stage has both); `other` is the rank of the missing one, when this
// rank has only one of them. Collective over the owners.
void sum_tied_embeddings(Device& device, Transport& transport, std::optional<StageGradients> first,
                         std::optional<StageGradients> last, Rank other);

}  // namespace trireme
