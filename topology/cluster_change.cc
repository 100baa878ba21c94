#include "topology/cluster_change.h"

#include <algorithm>
#include <charconv>
#include <unordered_set>

#include <fmt/format.h>

#include "topology/base/toml_writer.h"
#include "topology/hostlist.h"

namespace trireme {
namespace {

constexpr size_t kMostNodes = 1'000'000;

// Where a key stands: in every [[nodes]], in the table of its device or link, or in [fabric].
enum class Place { node_count, node, device, link, fabric };

struct ChangeKey {
  const char* name;
  Place place;
  const char* key;  // there
};

constexpr ChangeKey kKeys[] = {
    {"nodes", Place::node_count, "hosts"},
    {"hosts", Place::node, "hosts"},
    {"device", Place::node, "device"},
    {"devices", Place::node, "devices"},
    {"link", Place::node, "link"},
    {"nics", Place::node, "nics"},
    {"nic_gbps", Place::node, "nic_gbps"},
    {"cores", Place::node, "cores"},
    {"price_per_device_hour", Place::node, "price_per_device_hour"},
    {"memory_gb", Place::device, "memory_gb"},
    {"memory_gb_per_s", Place::device, "memory_gb_per_s"},
    {"fp32_tflops", Place::device, "fp32_tflops"},
    {"tf32_tflops", Place::device, "tf32_tflops"},
    {"bf16_tflops", Place::device, "bf16_tflops"},
    {"fp16_tflops", Place::device, "fp16_tflops"},
    {"link_gb_per_s", Place::device, "link_gb_per_s"},
    {"pcie_gb_per_s", Place::device, "pcie_gb_per_s"},
    {"link_latency_us", Place::link, "latency_us"},
    {"switch_devices", Place::link, "switch_devices"},
    {"fabric", Place::fabric, "kind"},
    {"latency_us", Place::fabric, "latency_us"},
    {"spine_latency_us", Place::fabric, "spine_latency_us"},
    {"leaf_nodes", Place::fabric, "leaf_nodes"},
    {"oversubscription", Place::fabric, "oversubscription"},
};

const ChangeKey& key_named(std::string_view name) {
  std::vector<std::string> names;
  for (const auto& key : kKeys) {
    if (key.name == name) return key;
    names.emplace_back(key.name);
  }
  const auto nearest = nearest_name(name, names);
  throw Error(ErrorKind::bad_input,
              fmt::format("found an unknown key \"{}\"; {}", name,
                          nearest ? fmt::format("did you mean \"{}\"?", *nearest)
                                  : fmt::format("known keys are {}", fmt::join(names, ", "))));
}

size_t parse_count(std::string_view text) {
  size_t count = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), count);
  if (status != std::errc() || end != text.data() + text.size() || count < 1 ||
      count > kMostNodes) {
    throw Error(ErrorKind::bad_input, fmt::format("nodes: found \"{}\", expected an integer from 1 "
                                                  "to {}",
                                                  text, kMostNodes));
  }
  return count;
}

// The first `count` hosts, or all and new ones that are numbered like the last.
std::string resized(const std::string& list, size_t count) {
  auto hosts = expand_hosts(list);
  if (count > hosts.size()) {
    const std::string last = hosts.back();
    const size_t digits = last.find_last_not_of("0123456789") + 1;
    const std::string stem = last.substr(0, digits);
    const size_t width = last.size() - digits;
    std::unordered_set<std::string> taken(hosts.begin(), hosts.end());
    for (size_t number = 1; hosts.size() < count; ++number) {
      auto name = fmt::format("{}{:0{}}", stem, number, width);
      if (taken.insert(name).second) hosts.push_back(std::move(name));
    }
  }
  hosts.resize(count);
  return compress_hosts(hosts);
}

// `key` of a table that may be written as a word; then `word_key` of the table takes the word.
void set_in_table(TomlFile& file, TomlTable& nodes, const std::string& path, const char* table,
                  const char* word_key, const char* key, std::string_view value) {
  std::string word;
  if (nodes.type_of(table) == "string") word = nodes.string(table);
  file.set(path + "." + table, key, value);
  if (!word.empty()) file.set(path + "." + table, word_key, toml_string(word));
}

// A flat fabric has nothing of what a tree has.
void set_in_fabric(TomlFile& file, std::string_view key, std::string_view value) {
  file.set("fabric", key, value);
  if (key != "kind" || value != "flat") return;
  for (const char* of_tree : {"leaf_nodes", "oversubscription", "spine_latency_us"}) {
    file.remove("fabric", of_tree);
  }
}

}  // namespace

void apply_cluster_change(TomlFile& file, const std::string& change) {
  const size_t equals = change.find('=');
  if (equals == std::string::npos) {
    throw Error(
        ErrorKind::bad_input,
        fmt::format("found \"{}\", expected key=value of a cluster, as in nic_gbps=800", change));
  }
  const auto& [name, place, key] = key_named(std::string_view(change).substr(0, equals));
  const auto value = std::string_view(change).substr(equals + 1);
  if (place == Place::fabric) return set_in_fabric(file, key, value);
  auto tables = file.root().tables("nodes");
  if (tables.size() > 1 && (place == Place::node_count || std::string_view(key) == "hosts")) {
    throw Error(ErrorKind::bad_input,
                fmt::format("{}: found {} kinds of nodes, expected one", name, tables.size()));
  }
  for (size_t i = 0; i < tables.size(); ++i) {
    auto& nodes = tables[i];
    const auto path = fmt::format("nodes[{}]", i);
    if (place == Place::node_count) {
      file.set(path, key, toml_string(resized(nodes.string(key), parse_count(value))));
    } else if (place == Place::device) {
      set_in_table(file, nodes, path, "device", "name", key, value);
    } else if (place == Place::link) {
      set_in_table(file, nodes, path, "link", "kind", key, value);
    } else {
      file.set(path, key, value);
    }
  }
}

}  // namespace trireme
