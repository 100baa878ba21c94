#include "planner/plan/rehearsal.h"

#include <fmt/format.h>

#include <filesystem>

#include "topology/base/toml_reader.h"
#include "topology/base/toml_writer.h"

namespace trireme {

std::string to_toml(const Rehearsal& rehearsal) {
  return fmt::format("wire_scale = {}\ntime_scale = {}\n", toml_number(rehearsal.wire_scale),
                     toml_number(rehearsal.time_scale));
}

std::optional<Rehearsal> find_rehearsal(const RunDirectory& run) {
  if (!std::filesystem::exists(run.rehearsal())) return std::nullopt;
  constexpr double kLargestScale = 1e6;
  const auto file = TomlFile::read(run.rehearsal());
  auto root = file.root();
  Rehearsal rehearsal;
  rehearsal.wire_scale = root.number("wire_scale", 0, 1);
  rehearsal.time_scale = root.number("time_scale", 0, kLargestScale);
  root.finish();
  return rehearsal;
}

}  // namespace trireme
