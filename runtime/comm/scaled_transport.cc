#include "runtime/comm/scaled_transport.h"

#include <algorithm>
#include <cmath>

#include "runtime/comm/communicator.h"

namespace trireme {

size_t ScaledTransport::scaled(uint64_t tag, size_t floats) const {
  const TagSpace space = space_of(tag);
  if (space != TagSpace::pipeline && space != TagSpace::gradient) return floats;
  const auto part = static_cast<size_t>(std::ceil(scale_ * static_cast<double>(floats)));
  return std::min(floats, std::max<size_t>(part, 2));
}

void ScaledTransport::send(Rank to, uint64_t tag, std::span<const float> data,
                           std::shared_ptr<const void> keep) {
  inner_.send(to, tag, data.first(scaled(tag, data.size())), std::move(keep));
}

std::unique_ptr<Work> ScaledTransport::receive(Rank from, uint64_t tag, std::span<float> into) {
  return inner_.receive(from, tag, into.first(scaled(tag, into.size())));
}

}  // namespace trireme
