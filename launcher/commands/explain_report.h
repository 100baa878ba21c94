#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "planner/explain.h"

namespace trireme {

// How `trireme plan --explain` answers: at most 100 columns for people, and the JSON of
// docs/planner.md. `asked` are the pins as the user wrote them; `plan` is what they stand against.
std::string explanation_table(const std::string& asked, const Explanation& explanation,
                              const Plan& plan, bool colour);
nlohmann::ordered_json explanation_json(const std::string& asked, const Explanation& explanation);

}  // namespace trireme
