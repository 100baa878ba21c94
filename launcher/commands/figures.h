#pragma once

#include <string>
#include <vector>

#include "planner/cost/memory.h"
#include "planner/plan/layout.h"

namespace trireme {

// How tables write figures.

std::string duration(double seconds);         // "2.8 s", "271 ms", "8.06 us"
std::string signed_duration(double seconds);  // "+271 ms", "-8.06 us"
std::string size(double bytes);               // "65.29 GB", "87.6 MB"

// `lead` and then the words of `text`, in lines of at most 100 columns, which are indented as far
// as `lead` is wide. Ends the last line.
std::string paragraph(const std::string& lead, const std::string& text);

// `share` of `width` columns filled with '#', in colour with painted blanks.
std::string bar(double share, int width, bool colour = false);

// Memory of a device by part against what the device has: letters of the parts, in colour cells.
std::string memory_bar(const MemoryParts& parts, double device_bytes, int width, bool colour);
// How to read it: "p parameters, g gradients, ..."
std::string memory_legend(bool colour);

// "2x4x16 v8 b2 RSZ": tensor x pipeline x data, chunks, micro-batch, and what else is on.
std::string short_name(const Layout& layout);

}  // namespace trireme
