#pragma once

namespace trireme {

// Cores of this machine that this process may run on; at least 1.
int usable_cores();

}  // namespace trireme
