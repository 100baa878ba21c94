#include "planner/plan/schedule.h"

#include <fmt/format.h>

namespace trireme {

char letter_of(OpKind kind) {
  switch (kind) {
    case OpKind::forward:
      return 'F';
    case OpKind::backward:
      return 'B';
    case OpKind::backward_input:
      return 'I';
    case OpKind::backward_weight:
      break;
  }
  return 'W';
}

std::string to_string(const Op& op) {
  return fmt::format("{}{}{}", op.stage, letter_of(op.kind), op.micro_batch);
}

std::vector<StagePlace> loop_placement(int pipeline, int chunks) {
  std::vector<StagePlace> places;
  places.reserve(static_cast<size_t>(pipeline) * static_cast<size_t>(chunks));
  for (int chunk = 0; chunk < chunks; ++chunk) {
    for (int rank = 0; rank < pipeline; ++rank) places.push_back({rank, chunk});
  }
  return places;
}

std::vector<StagePlace> v_placement(int pipeline, int chunks) {
  std::vector<StagePlace> places = loop_placement(pipeline, chunks);
  for (StagePlace& place : places) {
    if (place.chunk % 2 == 1) place.rank = pipeline - 1 - place.rank;
  }
  return places;
}

}  // namespace trireme
