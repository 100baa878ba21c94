#pragma once

#include "runtime/comm/transport.h"

namespace trireme {

// A transport that really moves only the first `scale` (above 0, up to 1) of what pipelines and
// gradient sums send, two floats at least; the rest of the memory is left alone on both sides.
// Collectives go through whole: their numbers are wanted. `inner` must outlive it.
class ScaledTransport final : public Transport {
 public:
  ScaledTransport(Transport& inner, double scale) : inner_(inner), scale_(scale) {}

  Rank rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  void send(Rank to, uint64_t tag, std::span<const float> data,
            std::shared_ptr<const void> keep) override;
  std::unique_ptr<Work> receive(Rank from, uint64_t tag, std::span<float> into) override;

 private:
  size_t scaled(uint64_t tag, size_t floats) const;

  Transport& inner_;
  double scale_;
};

}  // namespace trireme
