#include <algorithm>
#include <cstddef>

#include "planner/schedules/generators.h"

namespace trireme {
namespace {

size_t capped(int warm_up, const std::vector<Op>& forwards) {
  return std::min(static_cast<size_t>(std::max(warm_up, 0)), forwards.size());
}

}  // namespace

std::vector<Op> grouped_ops(OpKind kind, int rank, int pipeline, int micro_batches, int chunks,
                            int group) {
  std::vector<Op> ops;
  ops.reserve(static_cast<size_t>(micro_batches) * static_cast<size_t>(chunks));
  for (int first = 0; first < micro_batches; first += group) {
    const int end = std::min(first + group, micro_batches);
    for (int visit = 0; visit < chunks; ++visit) {
      const int chunk = kind == OpKind::forward ? visit : chunks - 1 - visit;
      for (int i = first; i < end; ++i) ops.push_back({kind, false, chunk * pipeline + rank, i});
    }
  }
  return ops;
}

std::vector<Op> weave(const std::vector<Op>& forwards, const std::vector<Op>& backwards,
                      int warm_up) {
  const size_t first = capped(warm_up, forwards);
  std::vector<Op> program;
  program.reserve(forwards.size() + backwards.size());
  program.assign(forwards.begin(), forwards.begin() + static_cast<std::ptrdiff_t>(first));
  for (size_t k = 0; k < backwards.size(); ++k) {
    if (first + k < forwards.size()) program.push_back(forwards[first + k]);
    program.push_back(backwards[k]);
  }
  return program;
}

std::vector<Op> weave_split(const std::vector<Op>& forwards, const std::vector<Op>& input_gradients,
                            int warm_up, int held_back) {
  const auto weight_gradient_of = [](Op op) {
    op.kind = OpKind::backward_weight;
    return op;
  };
  std::vector<Op> program;
  program.reserve(forwards.size() + 2 * input_gradients.size());
  size_t issued = 0, done = 0;
  for (const Op& op : weave(forwards, input_gradients, warm_up)) {
    program.push_back(op);
    if (op.kind == OpKind::forward) continue;
    if (++issued > static_cast<size_t>(held_back)) {
      program.push_back(weight_gradient_of(input_gradients[done++]));
    }
  }
  while (done < issued) program.push_back(weight_gradient_of(input_gradients[done++]));
  return program;
}

}  // namespace trireme
