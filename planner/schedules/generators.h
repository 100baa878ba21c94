#pragma once

#include <vector>

#include "planner/plan/schedule.h"

namespace trireme {

// By rank, how many forwards more than a schedule's definition says come before the first backward
// (fewer, when negative). Empty: none more on any rank.
using Deeper = std::vector<int>;

inline int deeper_on(const Deeper& deeper, int rank) {
  return deeper.empty() ? 0 : deeper[static_cast<size_t>(rank)];
}

// The ops of one kind on one rank of a looped pipeline: `group` micro-batches through every chunk
// (forwards from the first chunk on, backwards from the last), then the next group.
std::vector<Op> grouped_ops(OpKind kind, int rank, int pipeline, int micro_batches, int chunks,
                            int group);

// One rank's program from its forwards and backwards: `warm_up` forwards, then one forward and one
// backward in turn until the forwards run out, then the remaining backwards.
std::vector<Op> weave(const std::vector<Op>& forwards, const std::vector<Op>& backwards,
                      int warm_up);

// The same with split backwards: after every input gradient the oldest weight gradient that is
// still to do, but `held_back` of them always wait for the end.
std::vector<Op> weave_split(const std::vector<Op>& forwards, const std::vector<Op>& input_gradients,
                            int warm_up, int held_back);

// The generators; each says in its file what it builds and where it comes from. Arguments are
// positive and what schedules.h allows.
Schedule naive_schedule(int pipeline, int micro_batches);
Schedule gpipe_schedule(int pipeline, int micro_batches);
Schedule pipedream_schedule(int pipeline, int micro_batches, const Deeper& deeper = {});
Schedule one_forward_one_backward_schedule(int pipeline, int micro_batches,
                                           const Deeper& deeper = {});
Schedule eager_schedule(int pipeline, int micro_batches, const Deeper& deeper = {});
Schedule interleaved_schedule(int pipeline, int micro_batches, int chunks, int group,
                              const Deeper& deeper = {});
Schedule breadth_first_schedule(int pipeline, int micro_batches, int chunks);
Schedule zb_h1_schedule(int pipeline, int micro_batches, const Deeper& deeper = {});
Schedule interleaved_zb_schedule(int pipeline, int micro_batches, int chunks, int group,
                                 const Deeper& deeper = {});
Schedule zb_h2_schedule(int pipeline, int micro_batches, const Deeper& deeper = {});
Schedule zb_v_schedule(int pipeline, int micro_batches);
// The middle of a long order repeats itself; `in_full` places every op all the same, which takes
// several times as long and leads to the same order.
Schedule v_half_schedule(int pipeline, int micro_batches, bool in_full = false);
Schedule v_min_schedule(int pipeline, int micro_batches, bool in_full = false);
Schedule dualpipe_v_schedule(int pipeline, int micro_batches, const Deeper& deeper = {});
Schedule forward_only_schedule(int pipeline, int micro_batches, int chunks, int group);

}  // namespace trireme
