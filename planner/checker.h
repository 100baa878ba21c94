#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "planner/plan/schedule.h"

namespace trireme {

// Where a program first goes wrong.
struct OpPosition {
  int rank = 0;
  size_t position = 0;
  bool operator==(const OpPosition&) const = default;
};

struct Verdict {
  bool legal = false;
  std::string reason;                     // one sentence; empty when legal
  std::optional<OpPosition> first_wrong;  // the op to look at, where there is one
  // For ranks that wait for each other: ranks x steps as text, with the step that each rank waits
  // at in brackets and the culprit's in exclamation marks.
  std::string grid;
};

// How outputs get from rank to rank. A channel is an ordered pair of pipeline ranks. In every mode
// an op (or overlapped pair) waits for its inputs. The last three have no tags: a channel's
// messages are received in the order in which they were sent (as in NCCL, whose point-to-point
// calls take a peer and no tag), so an op that takes another message than its channel brings next
// is an error.
enum class SendMode {
  // Sends never block, a receive finds its message by tag: MPI_Isend with a tag of its own for each
  // message, and what trireme's runtime does.
  asynchronous,
  // A send ends when its channel's buffer has room for the message or the receive is waiting, one
  // message after the other: sends right behind their op, receives right before theirs
  // (MPI_Bsend, MPI 4.0 section 3.4; pipes and sockets).
  buffered,
  // What a rank sends and receives between two of its ops, or pairs, is posted as one batch, which
  // ends when every message in it has met its counterpart (Megatron-LM, p2p_communication.py:
  // batch_isend_irecv, then wait for all): the exchanges of neighbours must pair up.
  batched,
  // One message at a time, and a send ends only when its receive has been posted: sends right
  // behind their op, receives right before theirs (MPI_Ssend, MPI 4.0 section 3.4).
  blocking,
};

struct CheckOptions {
  SendMode sends = SendMode::asynchronous;
  std::optional<int> buffer = std::nullopt;  // SendMode::buffered: the messages that a channel
                                             // holds; nothing: as many as are sent
  // The most chunk activations that a rank may hold, each from its F until its B (or W): one for
  // all ranks, or one for each.
  std::optional<std::vector<int>> memory_limit = std::nullopt;
};

// Proves a schedule, or says why it is none:
//   placement   every stage has one place, every op stands on its stage's rank
//   counts      every stage does each micro-batch exactly once: one F and either one B or one I and
//               one W; a schedule without any backward op is legal (inference)
//   order       on each rank, no op stands before one of the same rank whose output it takes
//   memory      no rank holds more activations than its limit; an overlapped pair holds those of
//               both its ops
//   no deadlock with asynchronous sends every op runs
//   messages    under another SendMode, every channel's messages are taken in the order sent, and
//               every op runs
// in this order. Takes any Schedule whatever, never throws, and is linear in the number of ops.
Verdict check_schedule(const Schedule& schedule, const CheckOptions& options = {});

// The ops, at most `most`, that a schedule lacks, by stage and then micro-batch: a backward where
// any op of the schedule is one, as I and W where the schedule never has a full B. Ops of stages or
// micro-batches that do not exist are passed over. Linear in ops and `most` but for a sort of the
// ops.
std::vector<Op> missing_ops(const Schedule& schedule, size_t most);

}  // namespace trireme
