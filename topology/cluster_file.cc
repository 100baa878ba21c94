#include <unordered_set>

#include <fmt/format.h>

#include "topology/base/toml_reader.h"
#include "topology/cluster.h"
#include "topology/cluster_change.h"
#include "topology/hostlist.h"

namespace trireme {
namespace {

constexpr int kMostDevices = 1024;
constexpr int kMostNodes = 1'000'000;
constexpr double kGiga = 1e9;
constexpr double kTera = 1e12;
constexpr double kMicro = 1e-6;
constexpr double kBitsPerByte = 8;
// Upper ends that catch a slip of units, not tomorrow's hardware.
constexpr double kMostGiga = 1e9;
constexpr double kMostMicroseconds = 1e9;
constexpr double kMostPrice = 1e6;

// What a small message takes from one device of a node to another before its first byte arrives:
// nominal orders of magnitude for the software path (NCCL, loopback TCP), of which a table of link
// figures can say better.
double nominal_latency_s(NodeLink link) {
  switch (link) {
    case NodeLink::nvlink:
    case NodeLink::nvlink_pairs:
      return 3 * kMicro;
    case NodeLink::pcie:
      return 6 * kMicro;
    case NodeLink::memory:
      break;
  }
  return 30 * kMicro;
}

const std::vector<std::string>& link_names() {
  static const std::vector<std::string> names = {"nvlink", "nvlink-pairs", "pcie", "memory"};
  return names;
}

NodeLink link_named(const std::string& name) {
  if (name == "nvlink") return NodeLink::nvlink;
  if (name == "nvlink-pairs") return NodeLink::nvlink_pairs;
  return name == "pcie" ? NodeLink::pcie : NodeLink::memory;
}

// Reads a figure in data-sheet units into `value`; without one `value` stays, unless nothing else
// gives it.
void read_figure(TomlTable& table, const char* key, double unit, double low, double& value,
                 bool required) {
  const bool needed = required && value == 0;
  const auto figure =
      needed ? table.number(key, low, kMostGiga) : table.optional_number(key, low, kMostGiga);
  if (figure) value = *figure * unit;
}

// A table of figures. One that bears a catalogue name starts from the catalogue and overrides it.
Device read_device_table(TomlTable table) {
  constexpr double kLeast = 1e-6;
  Device device;
  const auto name = table.printable("name", table.string("name"));
  if (const auto* known = find_device(name)) device = *known;
  device.name = name;
  read_figure(table, "memory_gb", kGiga, kLeast, device.memory_bytes, true);
  read_figure(table, "memory_gb_per_s", kGiga, kLeast, device.memory_bytes_per_s, true);
  read_figure(table, "fp32_tflops", kTera, kLeast, device.fp32_flops, true);
  read_figure(table, "tf32_tflops", kTera, 0, device.tf32_flops, false);
  read_figure(table, "bf16_tflops", kTera, 0, device.bf16_flops, false);
  read_figure(table, "fp16_tflops", kTera, 0, device.fp16_flops, false);
  read_figure(table, "link_gb_per_s", kGiga, 0, device.link_bytes_per_s, false);
  read_figure(table, "pcie_gb_per_s", kGiga, 0, device.pcie_bytes_per_s, false);
  device.multiprocessors =
      static_cast<int>(table.integer_or("multiprocessors", device.multiprocessors, 0, 1 << 16));
  const auto read_share = [&](const char* key, double& share) {
    share = table.number_or(key, share, 0.01, 1);
  };
  read_share("matmul_efficiency", device.matmul_efficiency);
  read_share("attention_efficiency", device.attention_efficiency);
  read_share("memory_efficiency", device.memory_efficiency);
  read_share("link_efficiency", device.link_efficiency);
  device.speed_spread = table.number_or("speed_spread", device.speed_spread, 0, 1);
  device.switch_efficiency = table.number_or("switch_efficiency", device.switch_efficiency, 0, 1);
  table.finish();
  return device;
}

Device read_device(TomlTable& group) {
  if (group.type_of("device") == "table") return read_device_table(group.table("device"));
  if (group.type_of("device") != "string") {
    throw group.unexpected("device",
                           "a catalogue name like \"A100-SXM4-80GB\" or a table of figures");
  }
  const auto name = group.string("device");
  if (const auto* device = find_device(name)) return *device;
  const auto names = catalogue_names();
  const auto nearest = nearest_name(name, names);
  throw group.unexpected("device",
                         (nearest ? fmt::format("a catalogue name (did you mean \"{}\"?)", *nearest)
                                  : fmt::format("one of {}", fmt::join(names, ", "))) +
                             " or a table of figures");
}

// What the link rests on when its own rate is not given: the device's.
double device_rate(const Device& device, NodeLink link) {
  return link == NodeLink::pcie ? device.pcie_bytes_per_s : device.link_bytes_per_s;
}

// `link` is a name, or a table that also says rate, latency and shared uplinks; `table` is where
// `key` stands.
NodeLink read_link_kind(TomlTable& table, const char* key, const NodeGroup& group) {
  const auto& device = group.device;
  const auto nominal = device.is_cpu()               ? NodeLink::memory
                       : device.link_bytes_per_s > 0 ? NodeLink::nvlink
                                                     : NodeLink::pcie;
  const auto name = group.devices == 1 || device.is_cpu() ? table.optional_choice(key, link_names())
                                                          : table.choice(key, link_names());
  if (!name) return nominal;
  const auto link = link_named(*name);
  if ((link == NodeLink::memory) != device.is_cpu()) {
    throw table.error(
        key, fmt::format("found \"{}\", expected {} for {}", *name,
                         device.is_cpu() ? "memory" : "nvlink, nvlink-pairs or pcie", device.name));
  }
  return link;
}

void read_link(TomlTable& nodes, NodeGroup& group) {
  const bool is_table = nodes.type_of("link") == "table";
  auto table = is_table ? nodes.table("link") : nodes;
  const char* key = is_table ? "kind" : "link";
  group.link = read_link_kind(table, key, group);
  group.link_bytes_per_s = device_rate(group.device, group.link);
  group.link_latency_s = nominal_latency_s(group.link);
  if (is_table) {
    group.link_bytes_per_s =
        table.number_or("gb_per_s", group.link_bytes_per_s / kGiga, 0, kMostGiga) * kGiga;
    group.link_latency_s =
        table.number_or("latency_us", group.link_latency_s / kMicro, 0, kMostMicroseconds) * kMicro;
    group.pcie_switch_devices =
        static_cast<int>(table.integer_or("switch_devices", 0, 0, kMostDevices));
    table.finish();
  }
  if (group.devices == 1) return;
  const bool nvlink = group.link == NodeLink::nvlink || group.link == NodeLink::nvlink_pairs;
  if (group.link_bytes_per_s == 0) {
    throw table.error(
        key, fmt::format(
                 "{0} has no rate for {1}, expected {2} of the device or gb_per_s of the link{3}",
                 group.device.name, nvlink ? "NVLink" : "this link",
                 group.link == NodeLink::pcie ? "pcie_gb_per_s" : "link_gb_per_s",
                 nvlink ? ", or link = \"pcie\"" : ""));
  }
  if (group.link == NodeLink::nvlink_pairs && group.devices > 2 &&
      group.device.pcie_bytes_per_s == 0) {
    throw table.error(
        key,
        fmt::format("{} has no rate for PCIe between pairs, expected pcie_gb_per_s of the device",
                    group.device.name));
  }
}

void read_hosts(TomlTable& nodes, NodeGroup& group) {
  const auto list = nodes.string("hosts");
  try {
    group.hosts = expand_hosts(list);
  } catch (const Error& e) {
    throw nodes.error("hosts", e.what());
  }
}

NodeGroup read_group(TomlTable& nodes) {
  NodeGroup group;
  read_hosts(nodes, group);
  group.devices = static_cast<int>(nodes.integer_or("devices", 1, 1, kMostDevices));
  group.device = read_device(nodes);
  read_link(nodes, group);
  group.nics = static_cast<int>(nodes.integer_or("nics", 0, 0, kMostDevices));
  if (group.nics > 0) {
    group.nic_bytes_per_s = nodes.number("nic_gbps", 1e-6, 1e6) * kGiga / kBitsPerByte;
  } else if (nodes.optional_number("nic_gbps", 0, 1e6)) {
    throw nodes.error("nic_gbps", "found without nics, expected how many network cards a node has");
  }
  const auto cores = nodes.optional_integer("cores", 1, 1 << 16);
  if (cores && !group.device.is_cpu()) {
    throw nodes.error("cores", fmt::format("found for {}, expected only where device is \"cpu\"",
                                           group.device.name));
  }
  group.cores = static_cast<int>(cores.value_or(0));
  group.price_per_device_hour = nodes.number_or("price_per_device_hour", 0, 0, kMostPrice);
  nodes.finish();
  return group;
}

Fabric read_fabric(TomlTable table) {
  Fabric fabric;
  const bool tree = table.choice("kind", {"flat", "tree"}) == "tree";
  fabric.kind = tree ? FabricKind::tree : FabricKind::flat;
  constexpr double kNominalMicroseconds = 5;
  const double latency_us =
      table.number_or("latency_us", kNominalMicroseconds, 0, kMostMicroseconds);
  fabric.latency_s = latency_us * kMicro;
  fabric.spine_latency_s = fabric.latency_s;
  if (tree) {
    fabric.spine_latency_s =
        table.number_or("spine_latency_us", latency_us, 0, kMostMicroseconds) * kMicro;
    fabric.leaf_nodes = static_cast<int>(table.integer("leaf_nodes", 1, kMostNodes));
    fabric.oversubscription = table.number_or("oversubscription", 1, 1, 1000);
  }
  fabric.switch_reduction = table.boolean_or("switch_reduction", false);
  for (const auto* key : {"spine_latency_us", "leaf_nodes", "oversubscription"}) {
    if (!tree && table.has(key))
      throw table.error(key, "found in a flat fabric, expected only where kind is \"tree\"");
  }
  table.finish();
  return fabric;
}

// Each host stands once in the whole file, and nodes that are several can reach each other.
void check_together(const Cluster& cluster, TomlTable& root, const std::vector<TomlTable>& nodes) {
  std::unordered_set<std::string_view> seen;
  for (size_t g = 0; g < cluster.groups.size(); ++g) {
    for (const auto& host : cluster.groups[g].hosts) {
      if (seen.insert(host).second) continue;
      throw nodes[g].error(
          "hosts",
          fmt::format("found {}, which an earlier [[nodes]] has, expected each host once", host));
    }
  }
  const auto count = seen.size();
  if (count > kMostNodes) {
    throw root.error("nodes",
                     fmt::format("found {} hosts, expected at most {}", count, kMostNodes));
  }
  if (count == 1) return;
  for (size_t g = 0; g < cluster.groups.size(); ++g) {
    if (cluster.groups[g].nics > 0) continue;
    throw nodes[g].error(
        "nics",
        fmt::format("none, expected nics and nic_gbps (the network cards of each node) because "
                    "the cluster has {} nodes",
                    count));
  }
  if (cluster.fabric.kind == FabricKind::none) {
    throw root.error(
        "fabric",
        fmt::format("missing, expected a table [fabric] with kind and latency_us because the "
                    "cluster has {} nodes",
                    count));
  }
}

}  // namespace

Cluster parse_cluster(std::string_view text, const std::string& name,
                      const std::vector<std::string>& changes) {
  auto file = TomlFile::parse(text, name);
  for (const auto& change : changes) apply_cluster_change(file, change);
  auto root = file.root();
  Cluster cluster;
  cluster.name = root.printable("name", root.string_or("name", "cluster"));
  auto nodes = root.tables("nodes");
  if (nodes.empty())
    throw root.error("nodes", "missing, expected a table [[nodes]] for each kind of node");
  for (auto& table : nodes) cluster.groups.push_back(read_group(table));
  if (const auto fabric = root.optional_table("fabric")) cluster.fabric = read_fabric(*fabric);
  root.finish();
  check_together(cluster, root, nodes);
  return cluster;
}

Cluster read_cluster(const std::string& path, const std::vector<std::string>& changes) {
  return parse_cluster(read_text_file(path), path, changes);
}

}  // namespace trireme
