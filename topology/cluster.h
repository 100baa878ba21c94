#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "topology/base/ids.h"

namespace trireme {

// What the hardware is: node groups, the devices in a node, the links inside a node, the fabric
// between nodes. Values only; nothing here knows of models. Rates are in bytes/s and FLOP/s, per
// direction, times in seconds, sizes in bytes.

// One accelerator, or one CPU slot. Every figure of a catalogue device has its source in
// topology/catalogue.cc.
struct Device {
  std::string name;
  int year = 0;  // in which its chip came to market; 0: not known
  double memory_bytes = 0;
  double memory_bytes_per_s = 0;
  double fp32_flops =
      0;  // peak, dense, on vector units (for CPU and consumer cards the only fast type)
  double tf32_flops = 0;  // 0 where the device has no such type
  double bf16_flops = 0;  // dense tensor-core peak; 0 where the device has no such type
  double fp16_flops = 0;
  double link_bytes_per_s =
      0;  // NVLink, one direction, all links of the device together; 0 without NVLink
  double pcie_bytes_per_s = 0;  // host interface, one direction
  // How much of its peaks a device sustains in training; the defaults are for devices that nobody
  // has measured.
  int multiprocessors = 0;            // 0: work is not quantised into waves of tiles
  double matmul_efficiency = 0.7;     // of the matrix peak, by large products
  double attention_efficiency = 0.4;  // of the matrix peak, by fused attention
  double memory_efficiency = 0.85;    // of the memory rate, by streaming kernels
  double link_efficiency = 0.78;      // of the link rate, by collectives
  double speed_spread = 0;            // relative standard deviation of speed among such devices
  double switch_efficiency = 0;       // of the link rate, by an all-reduce that the switch between
                                      // the devices adds up; 0: it cannot

  bool is_cpu() const { return name == "cpu"; }
  bool operator==(const Device&) const = default;
};

// How two devices of one node reach each other.
enum class NodeLink {
  nvlink,        // all to all through NVSwitch, at the device's link rate
  nvlink_pairs,  // devices 2k and 2k+1 are bridged; other pairs go over PCIe
  pcie,          // through the host or PCIe switches
  memory         // CPU slots: shared memory of one machine
};

struct NodeGroup {
  std::vector<std::string> hosts;
  Device device;
  int devices = 1;  // per node
  NodeLink link = NodeLink::memory;
  double link_bytes_per_s = 0;  // between two devices of the node, one direction
  double link_latency_s = 0;
  int pcie_switch_devices = 0;  // devices that share one PCIe uplink; 0: none share
  int nics = 0;
  double nic_bytes_per_s = 0;  // each
  int cores = 0;               // CPU nodes: cores that the node's slots share; 0: as many as slots
  double price_per_device_hour = 0;  // in any currency; 0: not known
  bool operator==(const NodeGroup&) const = default;
};

enum class FabricKind { none, flat, tree };

// Between nodes. A tree has `leaf_nodes` nodes below each leaf switch; `oversubscription` is the
// leaf's bandwidth to its nodes divided by its bandwidth to the spine (1: non-blocking).
struct Fabric {
  FabricKind kind = FabricKind::none;
  double latency_s = 0;        // between two nodes of one leaf
  double spine_latency_s = 0;  // between two nodes of different leaves
  int leaf_nodes = 0;
  double oversubscription = 1;
  bool switch_reduction = false;  // switches add up all-reduces that pass them (SHARP)
  bool operator==(const Fabric&) const = default;
};

// The path between two devices, as seen by one message that has it to itself.
struct Path {
  double latency_s = 0;
  double bytes_per_s = 0;
  double reduced_bytes_per_s = 0;  // that a switch on it adds up; 0: none does
};

struct Cluster {
  std::string name;
  std::vector<NodeGroup> groups;
  Fabric fabric;

  int node_count() const;
  int device_count() const;
  const NodeGroup& group_of(Node node) const;
  const std::string& host(Node node) const;
  // Two devices of one node.
  Path inside(Node node, int device_a, int device_b) const;
  // A device of one node and a device of another, with one NIC of the sender to itself.
  Path between(Node a, Node b) const;
  bool operator==(const Cluster&) const = default;
};

// Reads a cluster file (docs/cluster.md). Throws Error(bad_input) with file, line, column, key,
// found and expected.
// `changes` are "key=value", applied in order as if the file said so; docs/cluster.md has their
// keys.
Cluster read_cluster(const std::string& path, const std::vector<std::string>& changes = {});
Cluster parse_cluster(std::string_view text, const std::string& name,
                      const std::vector<std::string>& changes = {});

// A catalogue device by its name, or nullptr. The names are in catalogue order.
const Device* find_device(std::string_view name);
std::vector<std::string> catalogue_names();

}  // namespace trireme
