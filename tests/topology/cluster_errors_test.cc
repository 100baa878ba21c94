#include <gtest/gtest.h>

#include "topology/base/error.h"
#include "topology/cluster.h"

// Each way to get a cluster file wrong, and the whole message that it earns.

namespace trireme {
namespace {

std::string complaint(const std::string& text) {
  try {
    parse_cluster(text, "c.toml");
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::bad_input);
    return e.what();
  }
  return "no complaint";
}

// A good file of one node and one line per key, in which one line is replaced.
std::string one_node_with(const std::string& key, const std::string& line) {
  std::string text = "[[nodes]]\n";
  for (const auto& [name, good] : {std::pair<std::string, std::string>{"hosts", "hosts = \"a\""},
                                   {"device", "device = \"A100-SXM4-80GB\""},
                                   {"devices", "devices = 8"},
                                   {"link", "link = \"nvlink\""}}) {
    text += (name == key ? line : good) + "\n";
  }
  return text;
}

std::string cpu_node_with(const std::string& line) {
  return "[[nodes]]\nhosts = \"a\"\ndevice = \"cpu\"\ndevices = 2\n" + line + "\n";
}

TEST(ClusterErrors, FileLevel) {
  EXPECT_EQ(complaint(""),
            "c.toml:1:1: nodes: missing, expected a table [[nodes]] for each kind of node");
  EXPECT_EQ(complaint("nodes = 3\n"), "c.toml:1:9: nodes: found 3, expected tables [[nodes]]");
  EXPECT_EQ(complaint("name = 3\n[[nodes]]\n"), "c.toml:1:8: name: found 3, expected a string");
  EXPECT_EQ(complaint(one_node_with("", "") + "[fabrik]\n"),
            "c.toml:6:2: fabrik: found an unknown key; did you mean \"fabric\"?");
  EXPECT_EQ(complaint("[=]\n").substr(0, 28), "c.toml:1:2: not valid TOML: ");
  EXPECT_EQ(complaint("name = \u00fc\n").substr(0, 28), "c.toml:1:8: not valid TOML: ");
  EXPECT_EQ(complaint("[[nodes]\n").substr(0, 28), "c.toml:1:9: not valid TOML: ");
}

// A terminal would take what follows an escape for a command.
TEST(ClusterErrors, ControlCharacters) {
  EXPECT_EQ(complaint("name = \"a\\u001b[31m\"\n"),
            "c.toml:1:8: name: found a control character, expected printable ones");
}

TEST(ClusterErrors, Hosts) {
  EXPECT_EQ(complaint(one_node_with("hosts", "")),
            "c.toml:1:1: nodes[0].hosts: missing, expected a string");
  EXPECT_EQ(complaint(one_node_with("hosts", "hosts = [\"a\"]")),
            "c.toml:2:9: nodes[0].hosts: found an array, expected a string");
  EXPECT_EQ(complaint(one_node_with("hosts", "hosts = \"a[2-1]\"")),
            "c.toml:2:9: nodes[0].hosts: host list \"a[2-1]\": found the descending range 2-1, "
            "expected the lower end first (at "
            "character 6)");
  EXPECT_EQ(
      complaint(one_node_with("hosts", "hosts = \"a,a\"")),
      "c.toml:2:9: nodes[0].hosts: host list \"a,a\": found a twice, expected each host once");
  EXPECT_EQ(complaint(cpu_node_with("") + cpu_node_with("")),
            "c.toml:7:9: nodes[1].hosts: found a, which an earlier [[nodes]] has, expected each "
            "host once");
}

TEST(ClusterErrors, Device) {
  EXPECT_EQ(complaint(one_node_with("device", "")),
            "c.toml:1:1: nodes[0].device: missing, expected a catalogue name "
            "like \"A100-SXM4-80GB\" or a table of figures");
  EXPECT_EQ(complaint(one_node_with("device", "device = 7")),
            "c.toml:3:10: nodes[0].device: found 7, expected a catalogue name like "
            "\"A100-SXM4-80GB\" or a table of "
            "figures");
  EXPECT_EQ(
      complaint(one_node_with("device", "device = \"A100-80GB\"")),
      "c.toml:3:10: nodes[0].device: found \"A100-80GB\", expected a catalogue name (did you mean "
      "\"A100-SXM4-80GB\"?) or a table of figures");
  EXPECT_EQ(complaint(one_node_with("device", "device = \"h100-sxm-80gb\"")),
            "c.toml:3:10: nodes[0].device: found \"h100-sxm-80gb\", expected a catalogue name (did "
            "you mean "
            "\"H100-SXM-80GB\"?) or a table of figures");
  EXPECT_EQ(complaint(one_node_with("device", "device = \"Gaudi\"")),
            "c.toml:3:10: nodes[0].device: found \"Gaudi\", expected one of V100-SXM2-16GB, "
            "V100-SXM2-32GB, T4, "
            "A100-SXM4-40GB, A100-SXM4-80GB, A800-SXM4-80GB, H100-SXM-80GB, H800-SXM-80GB, "
            "H200-SXM-141GB, GH200-96GB, "
            "B200-SXM-192GB, L40S, "
            "RTX-3090, RTX-4090, cpu or a table of figures");
  EXPECT_EQ(complaint(one_node_with("device", "device = {memory_gb = 1}")),
            "c.toml:3:10: nodes[0].device.name: missing, expected a string");
  EXPECT_EQ(complaint(one_node_with(
                "device", "device = {name = \"X\", memory_gb = 64, memory_gb_per_s = 2}")),
            "c.toml:3:10: nodes[0].device.fp32_tflops: missing, expected a number from 1e-06 to "
            "1000000000");
  EXPECT_EQ(complaint(one_node_with("device", "device = {name = \"X\", memory_gb = -1}")),
            "c.toml:3:35: nodes[0].device.memory_gb: found -1, expected a number from 1e-06 to "
            "1000000000");
  EXPECT_EQ(
      complaint(one_node_with("device", "device = {name = \"cpu\", memory = 1}")),
      "c.toml:3:25: nodes[0].device.memory: found an unknown key; did you mean \"memory_gb\"?");
}

TEST(ClusterErrors, Devices) {
  for (const auto* found : {"0", "-1", "1025", "8.0", "\"eight\"", "true", "nan"}) {
    EXPECT_EQ(complaint(one_node_with("devices", std::string("devices = ") + found)),
              std::string("c.toml:4:11: nodes[0].devices: found ") + found +
                  ", expected an integer from 1 to 1024");
  }
}

TEST(ClusterErrors, Link) {
  EXPECT_EQ(
      complaint(one_node_with("link", "")),
      "c.toml:1:1: nodes[0].link: missing, expected one of nvlink, nvlink-pairs, pcie, memory");
  EXPECT_EQ(complaint(one_node_with("link", "link = \"nvlnk\"")),
            "c.toml:5:8: nodes[0].link: found \"nvlnk\", expected one of nvlink, nvlink-pairs, "
            "pcie, memory (did you "
            "mean \"nvlink\"?)");
  EXPECT_EQ(complaint(one_node_with("link", "link = \"memory\"")),
            "c.toml:5:8: nodes[0].link: found \"memory\", expected nvlink, nvlink-pairs or pcie "
            "for A100-SXM4-80GB");
  EXPECT_EQ(complaint(cpu_node_with("link = \"pcie\"")),
            "c.toml:5:8: nodes[0].link: found \"pcie\", expected memory for cpu");
  EXPECT_EQ(complaint(one_node_with("device", "device = \"T4\"")),
            "c.toml:5:8: nodes[0].link: T4 has no rate for NVLink, expected link_gb_per_s of the "
            "device or gb_per_s of "
            "the link, or link = \"pcie\"");
  EXPECT_EQ(complaint(one_node_with("link", "link = {gb_per_s = 3}")),
            "c.toml:5:8: nodes[0].link.kind: missing, expected one of nvlink, nvlink-pairs, pcie, "
            "memory");
  EXPECT_EQ(complaint(one_node_with("link", "link = {kind = \"pcie\", gbps = 3}")),
            "c.toml:5:24: nodes[0].link.gbps: found an unknown key; did you mean \"gb_per_s\"?");
  EXPECT_EQ(
      complaint(one_node_with("link", "link = {kind = \"pcie\", latency_us = -3}")),
      "c.toml:5:37: nodes[0].link.latency_us: found -3, expected a number from 0 to 1000000000");
}

TEST(ClusterErrors, CoresAreForCpuNodes) {
  EXPECT_EQ(complaint(one_node_with("", "") + "cores = 64\n"),
            "c.toml:6:9: nodes[0].cores: found for A100-SXM4-80GB, expected only where device is "
            "\"cpu\"");
  EXPECT_EQ(complaint(cpu_node_with("cores = 0")),
            "c.toml:5:9: nodes[0].cores: found 0, expected an integer from 1 to 65536");
}

TEST(ClusterErrors, SeveralNodesNeedANetwork) {
  const std::string nodes = "[[nodes]]\nhosts = \"a[1-16]\"\ndevice = \"cpu\"\n";
  EXPECT_EQ(complaint(nodes),
            "c.toml:1:1: nodes[0].nics: none, expected nics and nic_gbps (the network cards of "
            "each node) because the "
            "cluster has 16 nodes");
  EXPECT_EQ(complaint(nodes + "nics = 1\n"),
            "c.toml:1:1: nodes[0].nic_gbps: missing, expected a number from 1e-06 to 1000000");
  EXPECT_EQ(complaint(nodes + "nic_gbps = 1\n"),
            "c.toml:4:12: nodes[0].nic_gbps: found without nics, expected how many network cards a "
            "node has");
  EXPECT_EQ(complaint(nodes + "nics = 1\nnic_gbps = 100\n"),
            "c.toml:1:1: fabric: missing, expected a table [fabric] with kind and latency_us "
            "because the cluster has 16 "
            "nodes");
}

TEST(ClusterErrors, Fabric) {
  const auto with = [](const std::string& lines) {
    return complaint(
        "[[nodes]]\nhosts = \"a[1-2]\"\ndevice = \"cpu\"\nnics = 1\nnic_gbps = 10\n[fabric]\n" +
        lines);
  };
  EXPECT_EQ(with(""), "c.toml:6:1: fabric.kind: missing, expected one of flat, tree");
  EXPECT_EQ(with("kind = \"ring\"\n"),
            "c.toml:7:8: fabric.kind: found \"ring\", expected one of flat, tree");
  EXPECT_EQ(with("kind = \"tree\"\n"),
            "c.toml:6:1: fabric.leaf_nodes: missing, expected an integer from 1 to 1000000");
  EXPECT_EQ(with("kind = \"tree\"\nleaf_nodes = 0\n"),
            "c.toml:8:14: fabric.leaf_nodes: found 0, expected an integer from 1 to 1000000");
  EXPECT_EQ(with("kind = \"tree\"\nleaf_nodes = 1\noversubscription = 0.5\n"),
            "c.toml:9:20: fabric.oversubscription: found 0.5, expected a number from 1 to 1000");
  EXPECT_EQ(with("kind = \"tree\"\nleaf_nodes = 1\noversubscription = nan\n"),
            "c.toml:9:20: fabric.oversubscription: found nan, expected a number from 1 to 1000");
  EXPECT_EQ(with("kind = \"flat\"\noversubscription = 2\n"),
            "c.toml:8:20: fabric.oversubscription: found in a flat fabric, expected only where "
            "kind is \"tree\"");
  EXPECT_EQ(with("kind = \"flat\"\nlatency = 2\n"),
            "c.toml:8:1: fabric.latency: found an unknown key; did you mean \"latency_us\"?");
}

TEST(ClusterErrors, AnUnreadableFileIsNamed) {
  try {
    read_cluster("/nonexistent/c.toml");
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "/nonexistent/c.toml: cannot be read: No such file or directory");
  }
  try {
    read_cluster("/");
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "/: cannot be read: it is a directory");
  }
}

TEST(ClusterErrors, AMillionNodesAreReadAndOneMoreIsRefused) {
  const std::string tail = "device = \"cpu\"\nnics = 1\nnic_gbps = 10\n[fabric]\nkind = \"flat\"\n";
  EXPECT_EQ(parse_cluster("[[nodes]]\nhosts = \"n[1-1000000]\"\n" + tail, "c.toml").node_count(),
            1'000'000);
  EXPECT_EQ(complaint("[[nodes]]\nhosts = \"n[1-1000001]\"\n" + tail),
            "c.toml:2:9: nodes[0].hosts: host list \"n[1-1000001]\": found more than 1000000 "
            "hosts, expected no more");
  EXPECT_EQ(
      complaint(
          "[[nodes]]\nhosts = \"x\"\ndevice = \"cpu\"\n[[nodes]]\nhosts = \"n[1-1000000]\"\n" +
          tail),
      "c.toml:1:1: nodes: found 1000001 hosts, expected at most 1000000");
}

}  // namespace
}  // namespace trireme
