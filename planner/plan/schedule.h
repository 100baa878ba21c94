#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace trireme {

enum class OpKind : uint8_t {
  forward,          // F
  backward,         // B: input and weight gradient in one
  backward_input,   // I
  backward_weight,  // W
};

char letter_of(OpKind kind);

// One operation of one stage on one micro-batch.
struct Op {
  OpKind kind = OpKind::forward;
  bool overlaps_next = false;  // this op and the next of its rank run as one overlapped pair
  int stage = 0;               // global stage: 0 .. pipeline*chunks-1, in model order
  int micro_batch = 0;
  bool operator==(const Op&) const = default;
};

std::string to_string(const Op& op);  // "3B7"

// Where a stage lives.
struct StagePlace {
  int rank = 0;   // pipeline rank
  int chunk = 0;  // position among that rank's stages
  bool operator==(const StagePlace&) const = default;
};

// For every pipeline rank the ordered list of Ops. A Schedule is data: generators make it, the
// checker proves it, the simulator times it, the runtime interprets it; sends and receives follow
// from the Ops and the places.
struct Schedule {
  std::string name;
  int micro_batches = 0;
  std::vector<StagePlace> stages;      // by global stage
  std::vector<std::vector<Op>> ranks;  // by pipeline rank
  // Every backward is followed at once by an update of its stage's weights, and a backward uses the
  // version of the weights that its forward used (PipeDream); otherwise one update ends the step.
  bool asynchronous = false;

  int pipeline() const { return static_cast<int>(ranks.size()); }
  int chunks() const { return ranks.empty() ? 0 : static_cast<int>(stages.size() / ranks.size()); }
  bool operator==(const Schedule&) const = default;
};

// Stage s on rank s % pipeline, chunk s / pipeline.
std::vector<StagePlace> loop_placement(int pipeline, int chunks);
// The same, but odd chunks run from the last rank to the first, so that a micro-batch turns round
// without leaving its rank: with two chunks a V.
std::vector<StagePlace> v_placement(int pipeline, int chunks);

// The compute-only CSV: one row per pipeline rank, cells "{stage}{F|B|I|W}{microbatch}",
// "(0F7;7B3)OVERLAP_F_B" for a pair, an empty cell for a wait (which carries no order and is not
// kept). Reading infers each stage's rank from the row it stands in; a rank's stages are its chunks
// in ascending order, which is what loop and V placements are. Blanks, quotes around a cell, \r\n,
// rows of different lengths and a byte order mark are taken; the sends, receives and (un)shards of
// PyTorch's format "compute_comms" are refused, since here they follow from the ops. Numbers go up
// to 999,999. Throws Error(bad_input) with `name`, row and column of the first wrong cell.
std::string to_csv(const Schedule& schedule);
Schedule parse_schedule_csv(std::string_view text, const std::string& name);

// One rank's row of that CSV, as the plan file stores it.
std::string row_to_csv(const std::vector<Op>& row);
std::vector<Op> parse_csv_row(std::string_view row, const std::string& where);

}  // namespace trireme
