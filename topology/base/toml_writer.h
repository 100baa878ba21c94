#pragma once

#include <string>
#include <string_view>

namespace trireme {

// Values as a TOML file spells them. What `toml_number` writes reads back to the very same double,
// in as few digits as that takes; nan and infinities are written too (a reader may refuse them).
// `text` must be UTF-8, as all of TOML is.
std::string toml_string(std::string_view text);
// The same as a message shows it, cut where it is long.
std::string short_toml_string(std::string_view text);
std::string toml_number(double value);

}  // namespace trireme
