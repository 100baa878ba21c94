#pragma once

#include <CLI/CLI.hpp>

namespace trireme {

// `trireme profile`: measures a job on this machine with a series of short runs and writes what
// plan, estimate and run then reckon with (docs/profile.md).
void add_profile_command(CLI::App& app, int& exit_status);

}  // namespace trireme
