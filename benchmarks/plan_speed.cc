// How long does the planner search, how much memory does it take, and how do both grow with the
// cluster?
//
//   plan-speed [MODEL [DEVICES]]
//
// Plans Llama 8B and 405B (bf16, sequences of 8192, 2048 samples a step, every choice open) for
// clusters of 8 to 131,072 H100, Llama 70B and two GPTs (sequences of 2048) for 1,024, and the
// Llamas for 512 A100 and 512 H100, on one thread and on as many as the planner takes. Each size
// runs in a process of its own, so that its peak memory is its own. The last column compares one
// thread with one prediction of the plan's step: what the search would cost if it knew the answer.

#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "planner/cost/step.h"
#include "planner/search.h"
#include "topology/cluster.h"

namespace trireme::bench {
namespace {

Job llama(const std::string& name, int layers, int hidden, int heads, int ffn_hidden) {
  Job job;
  job.name = name;
  job.model.family = Family::llama;
  job.model.layers = layers;
  job.model.hidden = hidden;
  job.model.heads = heads;
  job.model.kv_heads = 8;
  job.model.head_dim = 128;
  job.model.ffn_hidden = ffn_hidden;
  job.model.vocab = 128256;
  job.model.sequence = job.model.positions = 8192;
  job.training.global_batch = 2048;
  job.training.dtype = Dtype::bf16;
  job.training.reduction = Reduction::fast;
  return job;
}

Job gpt(const std::string& name, int layers, int hidden, int heads) {
  Job job = llama(name, layers, hidden, heads, 4 * hidden);
  job.model.family = Family::gpt2;
  job.model.kv_heads = heads;
  job.model.head_dim = hidden / heads;
  job.model.vocab = 51200;
  job.model.sequence = job.model.positions = 2048;
  job.model.tied_embeddings = true;
  return job;
}

NodeGroup nodes_of_eight(const std::string& device, const std::string& host, int count,
                         double nic_bytes_per_s) {
  NodeGroup group;
  for (int n = 0; n < count; ++n) group.hosts.push_back(fmt::format("{}{:05}", host, n));
  group.device = *find_device(device);
  group.devices = 8;
  group.link = NodeLink::nvlink;
  group.link_bytes_per_s = group.device.link_bytes_per_s;
  group.nics = 8;
  group.nic_bytes_per_s = nic_bytes_per_s;
  return group;
}

// On InfiniBand, eight nodes on a leaf switch.
Cluster cluster_of(const std::string& name, std::vector<NodeGroup> groups) {
  Cluster cluster{name, std::move(groups), {}};
  cluster.fabric.kind = FabricKind::tree;
  cluster.fabric.latency_s = 5e-6;
  cluster.fabric.spine_latency_s = 7e-6;
  cluster.fabric.leaf_nodes = 8;
  return cluster;
}

Cluster h100_cluster(int devices) {
  return cluster_of("H100", {nodes_of_eight("H100-SXM-80GB", "gpu", devices / 8, 50e9)});
}

// Half of the devices are older.
Cluster mixed_cluster(int devices) {
  return cluster_of("A100+H100", {nodes_of_eight("A100-SXM4-80GB", "old", devices / 16, 25e9),
                                  nodes_of_eight("H100-SXM-80GB", "new", devices / 16, 50e9)});
}

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// How many predictions of the plan the search took; a replica on several kinds has several.
std::string in_predictions(const Plan& plan, const Job& job, const Cluster& cluster,
                           double seconds) {
  if (cluster.groups.size() > 1) return "";
  const auto schedule = std::make_shared<const Schedule>(plan.schedule);
  const double begin = now();
  StepModel model(job, cluster);
  model.predict(placed_on(plan.layout, 0), plan.stages, schedule);
  return fmt::format("{:.0f}x", seconds / (now() - begin));
}

std::string outcome(const PlanResult& result, const Job& job, const Cluster& cluster,
                    double seconds) {
  const Layout& layout = result.plan.layout;
  return fmt::format("{:>9} {:>9}  {:<34} {:>7.2f} s {:>8}", result.considered, result.evaluated,
                     fmt::format("{}x{}x{} v{} b{} {}", layout.tensor, layout.pipeline, layout.data,
                                 layout.chunks, layout.micro_batch, layout.schedule),
                     result.plan.prediction.step_seconds,
                     in_predictions(result.plan, job, cluster, seconds));
}

struct Searched {
  double seconds = 1e300;  // least of three
  double mebibytes = 0;    // most that this process held so far
  std::variant<PlanResult, NoPlan> answer;
};

Searched search(const Job& job, const Cluster& cluster, int threads) {
  Searched searched;
  PlanOptions options;
  options.threads = threads;
  for (int turn = 0; turn < 3; ++turn) {
    const double begin = now();
    searched.answer = try_plan(job, cluster, options);
    searched.seconds = std::min(searched.seconds, now() - begin);
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  searched.mebibytes = static_cast<double>(usage.ru_maxrss) / 1024;
  return searched;
}

void measure(const Job& job, const Cluster& cluster, int devices) {
  const Searched alone = search(job, cluster, 1);
  const Searched together = search(job, cluster, 0);
  const auto* result = std::get_if<PlanResult>(&alone.answer);
  fmt::print("{:<6} {:>7} {:<9} {:>7.0f} ms {:>5.0f} MiB {:>7.0f} ms {:>5.0f} MiB  {}\n", job.name,
             devices, cluster.name, alone.seconds * 1e3, alone.mebibytes, together.seconds * 1e3,
             together.mebibytes,
             result != nullptr ? outcome(*result, job, cluster, alone.seconds) : "no layout fits");
}

void measure_in_a_child(const Job& job, const Cluster& cluster, int devices) {
  const pid_t child = fork();
  if (child == 0) {
    measure(job, cluster, devices);
    std::fflush(stdout);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
}

}  // namespace
}  // namespace trireme::bench

int main(int argc, char** argv) {
  using namespace trireme::bench;
  setvbuf(stdout, nullptr, _IOLBF, 0);
  const std::string model = argc > 1 ? argv[1] : "";
  const std::string size = argc > 2 ? argv[2] : "";
  fmt::print("{:<6} {:>7} {:<9} {:>20} {:>20}  {:>9} {:>9}  {:<34} {:>9} {:>8}\n", "model",
             "devices", "of", "one thread", fmt::format("{} threads", trireme::search_threads({})),
             "layouts", "simulated", "plan", "step", "search");
  const auto search = [&](const trireme::Job& job, const auto& cluster_of_size,
                          const std::vector<int>& sizes) {
    if (!model.empty() && model != job.name) return;
    for (const int devices : sizes) {
      if (!size.empty() && size != std::to_string(devices)) continue;
      measure_in_a_child(job, cluster_of_size(devices), devices);
    }
  };
  const trireme::Job of_8b = llama("8B", 32, 4096, 32, 14336);
  const trireme::Job of_70b = llama("70B", 80, 8192, 64, 28672);
  const trireme::Job of_405b = llama("405B", 126, 16384, 128, 53248);
  search(of_8b, h100_cluster, {8, 64, 512, 1024});
  search(of_70b, h100_cluster, {1024});
  search(gpt("175B", 96, 12288, 96), h100_cluster, {1024});
  search(gpt("530B", 105, 20480, 128), h100_cluster, {1024});
  search(of_405b, h100_cluster, {512, 1024, 4096, 16384, 65536, 131072});
  for (const trireme::Job& job : {of_8b, of_70b, of_405b}) search(job, mixed_cluster, {256, 1024});
  return 0;
}
