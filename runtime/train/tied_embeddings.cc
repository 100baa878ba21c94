#include "runtime/train/tied_embeddings.h"

#include "runtime/comm/communicator.h"

namespace trireme {
namespace {

std::span<float> table_of(const StageGradients& stage) {
  const auto& spec = stage.parameters->find("embedding.tokens");
  return {stage.gradients + spec.offset, spec.local_count()};
}

void exchange(Device& device, Transport& transport, std::span<float> own, Rank other) {
  if (own.empty()) return;
  const uint64_t tag = make_tag(TagSpace::tied, 0);
  const auto received = device.allocate(own.size());
  const auto sent = device.activation(own.size());
  device.copy(sent->data(), own.data(), own.size());
  device.synchronize();
  const auto arriving = transport.receive(other, tag, received.span());
  transport.send(other, tag, sent->span(), sent);
  arriving->wait();
  device.add(own.data(), received.data(), own.size());
}

}  // namespace

void sum_tied_embeddings(Device& device, Transport& transport, std::optional<StageGradients> first,
                         std::optional<StageGradients> last, Rank other) {
  if (!first && !last) return;
  const auto own = table_of(first ? *first : *last);
  if (!first || !last) return exchange(device, transport, own, other);
  if (first->parameters == last->parameters) {
    device.add(own.data(), first->gradients + first->parameters->tied_gradient, own.size());
    return;
  }
  const auto head = table_of(*last);
  device.add(own.data(), head.data(), own.size());
  device.copy(head.data(), own.data(), own.size());
}

}  // namespace trireme
