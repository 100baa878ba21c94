#pragma once

#include <string>

#include "topology/base/toml_reader.h"

namespace trireme {

// One "key=value" of a question like "what if the cards were twice as fast" into a cluster file
// that is not read yet, so that the reader checks the answer like any file. docs/cluster.md has the
// keys. Throws Error(bad_input) for a key that is none, or that names one kind of node among
// several.
void apply_cluster_change(TomlFile& file, const std::string& change);

}  // namespace trireme
