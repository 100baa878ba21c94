#pragma once

#include <atomic>
#include <cstdint>

namespace trireme {

// One page of memory that a rank shares with its agent: the rank notes what it is about to do, and
// the agent can read it after the rank has died of anything, SIGKILL included. One writer (the
// rank's interpreter thread), any readers. Fields are written one by one, so a reader may see a mix
// of two neighbouring ops; good enough to say where a rank died.
struct StatusPage {
  enum class Doing : int32_t {
    starting,
    loading,
    idle,
    op,
    tensor_collective,
    receiving,
    reducing,
    optimizer,
    saving,
    leaving
  };

  std::atomic<int32_t> doing{0};     // a Doing
  std::atomic<int32_t> step{-1};     // current step, from 0
  std::atomic<int32_t> op_kind{-1};  // an OpKind; -1: none yet
  std::atomic<int32_t> stage{-1};
  std::atomic<int32_t> micro_batch{-1};
  std::atomic<int32_t> peer{-1};  // rank it waits for, -1: none
};
static_assert(std::atomic<int32_t>::is_always_lock_free, "shared between processes");

}  // namespace trireme
