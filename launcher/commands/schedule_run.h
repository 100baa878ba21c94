#pragma once

#include <optional>
#include <string>

namespace trireme {

// What really happened in a step of a run, beside what was predicted: `format` is table, svg or
// json. `step` as metrics.jsonl counts them; none: the last that was traced. Three drawings on one
// axis: as planned, as simulated from the times that the ops really took, as measured. What the
// second changes is the ops' doing, what the third adds is the messages' and the machine's.
// Returns the text; throws Error(bad_input) for a directory that holds no such run.
std::string compare_with_run(const std::string& run_directory, std::optional<int> step,
                             const std::string& format);

}  // namespace trireme
