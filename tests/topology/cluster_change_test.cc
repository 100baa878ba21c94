#include "topology/cluster.h"

#include <gmock/gmock.h>

#include "topology/base/error.h"

namespace trireme {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const char* const kTree = R"(name = "t"
[[nodes]]
hosts = "gpu[08-11]"
device = "H100-SXM-80GB"
devices = 8
link = "nvlink"
nics = 8
nic_gbps = 400
[fabric]
kind = "tree"
leaf_nodes = 2
oversubscription = 2
)";

Cluster with(const std::vector<std::string>& changes, const std::string& text = kTree) {
  return parse_cluster(text, "c.toml", changes);
}

std::string complaint(const std::vector<std::string>& changes, const std::string& text = kTree) {
  try {
    with(changes, text);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::bad_input);
    return error.what();
  }
  return "none";
}

// The file that says the same.
std::string written(const std::string& old_text, const std::string& new_text) {
  std::string text = kTree;
  return text.replace(text.find(old_text), old_text.size(), new_text);
}

TEST(ClusterChange, IsTheSameAsTheFileThatSaysSo) {
  EXPECT_EQ(with({"nic_gbps=800"}), with({}, written("nic_gbps = 400", "nic_gbps = 800")));
  EXPECT_EQ(with({"nics=4", "devices=4"}),
            with({}, written("devices = 8\nlink = \"nvlink\"\nnics = 8",
                             "devices = 4\nlink = \"nvlink\"\nnics = 4")));
  EXPECT_EQ(with({"latency_us=2.5"}), with({}, written("[fabric]", "[fabric]\nlatency_us = 2.5")));
  EXPECT_EQ(with({"oversubscription=8"}),
            with({}, written("oversubscription = 2", "oversubscription = 8")));
  EXPECT_EQ(with({"link=pcie"}), with({}, written("\"nvlink\"", "\"pcie\"")));
  EXPECT_EQ(with({"link_latency_us=9"}),
            with({}, written("\"nvlink\"", "{kind = \"nvlink\", latency_us = 9}")));
  EXPECT_EQ(with({"device=A100-SXM4-80GB"}), with({}, written("H100-SXM-80GB", "A100-SXM4-80GB")));
  EXPECT_EQ(with({"memory_gb=40", "bf16_tflops=500"}),
            with({}, written("\"H100-SXM-80GB\"",
                             "{name = \"H100-SXM-80GB\", memory_gb = 40, bf16_tflops = 500}")));
  EXPECT_EQ(with({"price_per_device_hour=2.5"}).groups[0].price_per_device_hour, 2.5);
}

TEST(ClusterChange, TheLaterOneWins) {
  EXPECT_EQ(with({"nic_gbps=100", "nic_gbps=800"}), with({"nic_gbps=800"}));
  // A device by name has its own figures again.
  EXPECT_EQ(with({"memory_gb=40", "device=A100-SXM4-80GB"}), with({"device=A100-SXM4-80GB"}));
}

TEST(ClusterChange, NodesAreTakenFromTheFrontAndNumberedOn) {
  EXPECT_THAT(with({"nodes=2"}).groups[0].hosts, ElementsAre("gpu08", "gpu09"));
  EXPECT_THAT(with({"nodes=4"}), with({}));
  EXPECT_THAT(with({"nodes=6"}).groups[0].hosts,
              ElementsAre("gpu08", "gpu09", "gpu10", "gpu11", "gpu01", "gpu02"));
  EXPECT_EQ(with({"nodes=100000"}).node_count(), 100000);
}

TEST(ClusterChange, OneMachineBecomesSeveralWithANetwork) {
  const std::string box = "[[nodes]]\nhosts = \"box\"\ndevice = \"cpu\"\ndevices = 4\n";
  EXPECT_THAT(complaint({"nodes=2"}, box), HasSubstr("nodes[0].nics: none, expected nics"));
  const Cluster cluster = with({"nodes=2", "nics=1", "nic_gbps=10", "fabric=flat"}, box);
  EXPECT_THAT(cluster.groups[0].hosts, ElementsAre("box", "box1"));
  EXPECT_EQ(cluster.fabric.kind, FabricKind::flat);
}

TEST(ClusterChange, AFlatFabricHasNothingOfTheTreeThatItWas) {
  const std::string flat = "kind = \"flat\"\n";
  EXPECT_EQ(with({"fabric=flat"}),
            with({}, written("kind = \"tree\"\nleaf_nodes = 2\noversubscription = 2\n", flat)));
}

TEST(ClusterChange, EveryKindOfNodeIsChanged) {
  const std::string two = std::string(kTree) +
                          "[[nodes]]\nhosts = \"old\"\ndevice = \"A100-SXM4-80GB\"\nnics = 1\n"
                          "nic_gbps = 100\n";
  const Cluster cluster = with({"nic_gbps=800"}, two);
  EXPECT_EQ(cluster.groups[0].nic_bytes_per_s, 1e11);
  EXPECT_EQ(cluster.groups[1].nic_bytes_per_s, 1e11);
  EXPECT_EQ(complaint({"nodes=3"}, two), "nodes: found 2 kinds of nodes, expected one");
}

TEST(ClusterChange, IsReadAsStrictlyAsAFile) {
  EXPECT_EQ(complaint({"nic_gpbs=3"}),
            "found an unknown key \"nic_gpbs\"; did you mean \"nic_gbps\"?");
  EXPECT_EQ(complaint({"nic_gbps"}),
            "found \"nic_gbps\", expected key=value of a cluster, as in nic_gbps=800");
  EXPECT_EQ(complaint({"nic_gbps=fast"}),
            "c.toml: nodes[0].nic_gbps: found \"fast\", expected a number from 1e-06 to 1000000");
  // A value cannot bring keys of its own along.
  EXPECT_THAT(complaint({"nic_gbps=1\nnics=2"}), HasSubstr("nodes[0].nic_gbps: found \"1"));
  EXPECT_EQ(complaint({"nodes=0"}), "nodes: found \"0\", expected an integer from 1 to 1000000");
  EXPECT_THAT(complaint({"device=H100"}), HasSubstr("found \"H100\", expected a catalogue name"));
  EXPECT_THAT(complaint({"device=L40S"}), HasSubstr("L40S has no rate for NVLink"));
  EXPECT_THAT(complaint({"fabric=flat", "leaf_nodes=4"}), HasSubstr("found in a flat fabric"));
}

}  // namespace
}  // namespace trireme
