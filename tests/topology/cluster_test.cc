#include "topology/cluster.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

namespace trireme {
namespace {

const std::string kTwoNodes = R"(name = "two"
[[nodes]]
hosts = "gpu[1-2]"
device = "A100-SXM4-80GB"
devices = 8
link = "nvlink"
nics = 8
nic_gbps = 200
[fabric]
kind = "flat"
latency_us = 5
)";

TEST(Cluster, ReadsEveryKey) {
  const auto cluster = parse_cluster(R"(name = "mixed"
[[nodes]]
hosts = "a[1-3]"
device = "A100-SXM4-80GB"
devices = 8
link = "nvlink"
nics = 8
nic_gbps = 200
[[nodes]]
hosts = "b[1-2]"
device.name = "X1"
device.memory_gb = 64
device.memory_gb_per_s = 2000
device.bf16_tflops = 400
device.fp32_tflops = 50
device.tf32_tflops = 200
device.fp16_tflops = 401
device.link_gb_per_s = 300
device.pcie_gb_per_s = 32
devices = 4
link = {kind = "pcie", gb_per_s = 20, latency_us = 10, switch_devices = 2}
nics = 1
nic_gbps = 100
[fabric]
kind = "tree"
latency_us = 2
spine_latency_us = 4
leaf_nodes = 3
oversubscription = 1.5
switch_reduction = true
)",
                                     "c.toml");
  EXPECT_EQ(cluster.name, "mixed");
  EXPECT_EQ(cluster.node_count(), 5);
  EXPECT_EQ(cluster.device_count(), 3 * 8 + 2 * 4);
  EXPECT_EQ(cluster.host(Node(2)), "a3");
  EXPECT_EQ(cluster.host(Node(3)), "b1");
  EXPECT_EQ(cluster.groups[0].device, *find_device("A100-SXM4-80GB"));
  const Device x1 = {.name = "X1",
                     .memory_bytes = 64e9,
                     .memory_bytes_per_s = 2000e9,
                     .fp32_flops = 50e12,
                     .tf32_flops = 200e12,
                     .bf16_flops = 400e12,
                     .fp16_flops = 401e12,
                     .link_bytes_per_s = 300e9,
                     .pcie_bytes_per_s = 32e9};
  EXPECT_EQ(cluster.groups[1].device, x1);
  EXPECT_EQ(cluster.groups[1].pcie_switch_devices, 2);
  EXPECT_EQ(cluster.fabric.kind, FabricKind::tree);
  EXPECT_EQ(cluster.fabric.oversubscription, 1.5);
  EXPECT_TRUE(cluster.fabric.switch_reduction);

  EXPECT_EQ(cluster.inside(Node(0), 0, 7).bytes_per_s, 300e9);
  EXPECT_EQ(cluster.inside(Node(4), 0, 3).bytes_per_s, 20e9);
  EXPECT_DOUBLE_EQ(cluster.inside(Node(4), 0, 3).latency_s, 10e-6);
  // Between groups the slower card sets the rate: 100 Gbit/s are 12.5 GB/s. Leaves are a1 a2 a3 |
  // b1 b2.
  EXPECT_EQ(cluster.between(Node(0), Node(3)).bytes_per_s, 12.5e9);
  EXPECT_DOUBLE_EQ(cluster.between(Node(0), Node(3)).latency_s, 4e-6);
  EXPECT_EQ(cluster.between(Node(0), Node(2)).bytes_per_s, 25e9);
  EXPECT_DOUBLE_EQ(cluster.between(Node(0), Node(2)).latency_s, 2e-6);
}

TEST(Cluster, OneNodeNeedsNoNetwork) {
  const auto cluster = parse_cluster(
      "[[nodes]]\nhosts = \"localhost\"\ndevice = \"cpu\"\ndevices = 8\ncores = 2\n", "c.toml");
  EXPECT_EQ(cluster.groups[0].link, NodeLink::memory);
  EXPECT_EQ(cluster.groups[0].cores, 2);
  EXPECT_EQ(cluster.fabric.kind, FabricKind::none);
  EXPECT_EQ(cluster.inside(Node(0), 0, 1).bytes_per_s, 1.5e9);
}

TEST(Cluster, BridgedPairsFallBackToPcieBeyondThePair) {
  const auto cluster = parse_cluster(
      "[[nodes]]\nhosts = \"a\"\ndevice = \"RTX-3090\"\ndevices = 4\nlink = \"nvlink-pairs\"\n",
      "c.toml");
  EXPECT_EQ(cluster.inside(Node(0), 2, 3).bytes_per_s, 56.25e9);
  EXPECT_EQ(cluster.inside(Node(0), 1, 2).bytes_per_s, 32e9);
}

TEST(Cluster, ADeviceTableWithACatalogueNameOverridesTheCatalogue) {
  const auto cluster = parse_cluster(
      "[[nodes]]\nhosts = \"a\"\ndevice = {name = \"cpu\", fp32_tflops = 0.06}\n", "c.toml");
  auto expected = *find_device("cpu");
  expected.fp32_flops = 0.06e12;
  EXPECT_EQ(cluster.groups[0].device, expected);
}

// Data sheets print links both ways and, since Ampere, peaks "with sparsity": the catalogue halves
// both.
TEST(Catalogue, HoldsDensePeaksAndOneDirection) {
  EXPECT_EQ(find_device("A100-SXM4-80GB")->bf16_flops, 624e12 / 2);
  EXPECT_EQ(find_device("A100-SXM4-80GB")->link_bytes_per_s, 600e9 / 2);
  EXPECT_NEAR(find_device("H100-SXM-80GB")->bf16_flops, 1979e12 / 2, 0.2e12);
  EXPECT_EQ(find_device("H100-SXM-80GB")->link_bytes_per_s, 900e9 / 2);
  EXPECT_NEAR(find_device("L40S")->bf16_flops, 733e12 / 2, 5e12);
  EXPECT_EQ(find_device("V100-SXM2-16GB")->bf16_flops, 0);
  EXPECT_EQ(find_device("T4")->bf16_flops, 0);
  EXPECT_EQ(find_device("H100"), nullptr);
}

TEST(Catalogue, HasTheDocumentedNamesAndOnlySaneFigures) {
  EXPECT_THAT(catalogue_names(),
              testing::ElementsAre("V100-SXM2-16GB", "V100-SXM2-32GB", "T4", "A100-SXM4-40GB",
                                   "A100-SXM4-80GB", "A800-SXM4-80GB", "H100-SXM-80GB",
                                   "H800-SXM-80GB", "H200-SXM-141GB", "GH200-96GB",
                                   "B200-SXM-192GB", "L40S", "RTX-3090", "RTX-4090", "cpu"));
  for (const auto& name : catalogue_names()) {
    const auto* device = find_device(name);
    ASSERT_NE(device, nullptr) << name;
    EXPECT_GT(device->memory_bytes, 0) << name;
    EXPECT_GT(device->memory_bytes_per_s, 0) << name;
    EXPECT_GT(device->fp32_flops, 0) << name;
    EXPECT_GE(device->fp16_flops, device->bf16_flops) << name;
    EXPECT_GE(device->bf16_flops, device->tf32_flops) << name;
    EXPECT_EQ(device->is_cpu(), name == "cpu");
  }
}

TEST(Cluster, EveryShippedClusterParses) {
  int count = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(TRIREME_SOURCE_DIR "/configs/clusters")) {
    const auto cluster = read_cluster(entry.path().string());
    EXPECT_EQ(cluster.name, entry.path().stem().string());
    ++count;
  }
  EXPECT_GE(count, 5);
}

TEST(Cluster, TwoReadingsAreEqual) {
  EXPECT_EQ(parse_cluster(kTwoNodes, "a.toml"), parse_cluster(kTwoNodes, "b.toml"));
}

}  // namespace
}  // namespace trireme
