#pragma once

#include <optional>
#include <string>

#include "planner/plan/run_directory.h"

namespace trireme {

// How a plan is rehearsed on emulated devices. A run whose directory holds one is a rehearsal: the
// launcher writes it, every rank reads it.
struct Rehearsal {
  double wire_scale = 1;  // share of each message's bytes that is really sent, above 0, up to 1
  double time_scale = 1;  // real seconds per predicted second, above 0
  bool operator==(const Rehearsal&) const = default;
};

std::string to_toml(const Rehearsal& rehearsal);
// Nothing when the run trains. Throws Error(bad_input) when the file is not a rehearsal.
std::optional<Rehearsal> find_rehearsal(const RunDirectory& run);

}  // namespace trireme
