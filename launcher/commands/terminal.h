#pragma once

namespace trireme {

// What stdout can show. Colours only on a terminal, and not where NO_COLOR (no-color.org) or
// TERM=dumb ask for none.
bool stdout_takes_colour();
// Whether what is said may rewrite its last line: a terminal that is not TERM=dumb.
bool stderr_rewrites_lines();
// Columns of the terminal, 60 to 200; 98 where stdout is none.
int stdout_columns();

}  // namespace trireme
