#include "runtime/train/stream.h"

#include <algorithm>

#include "topology/base/check.h"

namespace trireme {

std::vector<Op> step_of_stream(const std::vector<Op>& row, int micro_batches, int step, bool filled,
                               bool drain) {
  const auto numbered = [&](Op op, int in_step) {
    op.micro_batch += in_step % 2 * micro_batches;
    return op;
  };
  const auto first_backward =
      std::find_if(row.begin(), row.end(), [](const Op& op) { return op.kind != OpKind::forward; });
  const auto depth = first_backward - row.begin();
  TRIREME_CHECK(2 * depth <= static_cast<std::ptrdiff_t>(row.size()));
  const auto last_backwards = row.end() - depth;
  std::vector<Op> ops;
  for (auto op = filled ? first_backward : row.begin(); op < last_backwards; ++op)
    ops.push_back(numbered(*op, step));
  for (std::ptrdiff_t k = 0; k < depth; ++k) {
    ops.push_back(numbered(last_backwards[k], step));
    if (!drain) ops.push_back(numbered(row[k], step + 1));
  }
  return ops;
}

}  // namespace trireme
