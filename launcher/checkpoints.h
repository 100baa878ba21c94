#pragma once

#include <optional>
#include <string>
#include <vector>

namespace trireme {

// A checkpoint whose files are all there and whole.
struct FoundCheckpoint {
  std::string directory;
  int step = 0;  // how many steps were done
};

// What --resume finds at `path`, a run directory or one checkpoint directory: the newest checkpoint
// whose manifest.json ({"step":, "files":[{"name", "bytes", "sha256"}]}) verifies against the files
// beside it, names all that a checkpoint has, and is of the step that its directory says. Each
// checkpoint that was passed over is added to `skipped` as a sentence that says which and why.
// Reads every byte of the checkpoints it looks at.
std::optional<FoundCheckpoint> find_checkpoint(const std::string& path,
                                               std::vector<std::string>& skipped);

// Removes what ranks that were killed left half-written in this run directory.
void remove_partial_checkpoints(const std::string& run_directory);

// Why the checkpoint in this directory cannot be trusted, or nothing when it can; then `step` is
// set.
std::optional<std::string> checkpoint_defect(const std::string& directory, int& step);

}  // namespace trireme
