#include <fmt/format.h>

#include <set>

#include "planner/profile/profile.h"
#include "topology/base/toml_reader.h"
#include "topology/base/toml_writer.h"

namespace trireme {
namespace {

constexpr const char* kFormat = "trireme profile 1";
constexpr int kMost = 1 << 20;
constexpr double kMostSeconds = 1e6;

std::string cost_table(const char* key, const StageCost& cost) {
  return fmt::format("{} = {{forward = {}, input = {}, weight = {}}}\n", key,
                     toml_number(cost.forward), toml_number(cost.input), toml_number(cost.weight));
}

StageCost read_cost(TomlTable& parent, const char* key) {
  TomlTable table = parent.table(key);
  const auto seconds = [&](const char* name) { return table.number(name, 0, kMostSeconds); };
  const StageCost cost{seconds("forward"), seconds("input"), seconds("weight")};
  table.finish();
  return cost;
}

int read_count(TomlTable& table, const char* key) {
  return static_cast<int>(table.integer(key, 1, kMost));
}

void read_model(TomlTable table, Profile& profile) {
  Model& model = profile.model;
  model.family =
      table.choice("family", {"gpt2", "llama"}) == "llama" ? Family::llama : Family::gpt2;
  model.hidden = read_count(table, "hidden");
  model.heads = read_count(table, "heads");
  model.kv_heads = read_count(table, "kv_heads");
  model.head_dim = read_count(table, "head_dim");
  model.ffn_hidden = read_count(table, "ffn_hidden");
  model.vocab = read_count(table, "vocab");
  model.sequence = read_count(table, "sequence");
  model.tied_embeddings = table.boolean("tied_embeddings");
  profile.dtype = table.choice("dtype", {"fp32", "bf16"}) == "fp32" ? Dtype::fp32 : Dtype::bf16;
  const bool fast = table.optional_choice("reduction", {"ordered", "fast"}) == "fast";
  profile.reduction = fast ? Reduction::fast : Reduction::ordered;
  table.finish();
}

std::optional<StageCost> read_cost_if_there(TomlTable& table, const char* key) {
  return table.has(key) ? std::optional(read_cost(table, key)) : std::nullopt;
}

AcceleratorProfile::MeasuredParts read_accelerator_parts(TomlTable& table) {
  AcceleratorProfile::MeasuredParts row;
  row.tensor = read_count(table, "tensor");
  row.micro_batch = read_count(table, "micro_batch");
  row.sequence_parallel = table.boolean_or("sequence_parallel", false);
  const auto recompute = table.optional_choice("recompute", recompute_names());
  if (recompute) row.recompute = *recompute_named(*recompute);
  row.parts.layer = read_cost(table, "layer");
  row.parts.embedding = read_cost_if_there(table, "embedding");
  row.parts.head = read_cost_if_there(table, "head");
  table.finish();
  return row;
}

AcceleratorProfile::MeasuredCollective read_collective(TomlTable& table) {
  AcceleratorProfile::MeasuredCollective row;
  if (table.choice("kind", {"all_reduce", "scatter_gather"}) == "scatter_gather") {
    row.kind = AcceleratorProfile::Collective::scatter_gather;
  }
  row.ranks = static_cast<int>(table.integer("ranks", 2, kMost));
  row.nodes = static_cast<int>(table.integer_or("nodes", 1, 1, row.ranks));
  row.bytes = table.number("bytes", 1, 1e15);
  row.seconds = table.number("seconds", 1e-12, kMostSeconds);
  table.finish();
  return row;
}

// Each combination of what `key` says of a row stands once.
template <class Row, class Read, class Key>
std::vector<Row> read_rows(std::vector<TomlTable> tables, const char* first, Read read, Key key) {
  std::vector<Row> rows;
  std::set<decltype(key(Row{}))> seen;
  for (TomlTable& table : tables) {
    rows.push_back(read(table));
    if (seen.insert(key(rows.back())).second) continue;
    throw table.error(first, "found the same choices again, expected each combination once");
  }
  return rows;
}

AcceleratorProfile read_accelerator(TomlTable& root, const std::string& device) {
  AcceleratorProfile profile{device, {}, {}};
  profile.measured = read_rows<AcceleratorProfile::MeasuredParts>(
      root.tables("measured"), "tensor", read_accelerator_parts, [](const auto& row) {
        return std::make_tuple(row.tensor, row.micro_batch, row.sequence_parallel, row.recompute);
      });
  profile.collectives = read_rows<AcceleratorProfile::MeasuredCollective>(
      root.tables("collective"), "kind", read_collective,
      [](const auto& row) { return std::make_tuple(row.kind, row.ranks, row.nodes, row.bytes); });
  if (profile.measured.empty() && profile.collectives.empty()) {
    throw root.error("measured", "missing, expected a table [[measured]] or [[collective]]");
  }
  return profile;
}

void read_measured(TomlTable& root, Profile& profile) {
  std::vector<TomlTable> tables = root.tables("measured");
  if (tables.empty()) {
    throw root.error("measured", "missing, expected a table [[measured]] for each tensor degree");
  }
  std::set<std::tuple<int, int, int>> seen;
  for (TomlTable& table : tables) {
    Profile::MeasuredParts row;
    row.tensor = read_count(table, "tensor");
    row.micro_batch = read_count(table, "micro_batch");
    row.threads = read_count(table, "threads");
    row.parts.cores = table.number("cores", 1e-3, kMost);
    row.parts.layer = read_cost(table, "layer");
    row.parts.embedding = read_cost(table, "embedding");
    row.parts.head = read_cost(table, "head");
    table.finish();
    if (!seen.emplace(row.tensor, row.micro_batch, row.threads).second) {
      throw table.error("tensor",
                        fmt::format("found tensor = {}, micro_batch = {}, threads = {} again, "
                                    "expected each combination once",
                                    row.tensor, row.micro_batch, row.threads));
    }
    profile.measured.push_back(row);
  }
}

}  // namespace

Profile parse_profile(std::string_view text, const std::string& name) {
  const auto file = TomlFile::parse(text, name);
  TomlTable root = file.root();
  root.choice("format", {kFormat});
  Profile profile;
  profile.name = name;
  if (const auto device = root.optional_string("device")) {
    read_model(root.table("model"), profile);
    profile.accelerator = read_accelerator(root, *device);
    root.finish();
    return profile;
  }
  profile.cores = read_count(root, "cores");
  read_model(root.table("model"), profile);
  read_measured(root, profile);
  TomlTable message = root.table("message");
  profile.message = {message.number("hop_seconds", 0, kMostSeconds),
                     message.number("hop_seconds_per_byte", 0, kMostSeconds),
                     message.number("rank_seconds", 0, kMostSeconds),
                     message.number("rank_seconds_per_byte", 0, kMostSeconds)};
  message.finish();
  TomlTable end = root.table("step_end");
  profile.end = {end.number("seconds", 0, kMostSeconds),
                 end.number("seconds_per_peer", 0, kMostSeconds),
                 end.number("seconds_per_parameter", 0, kMostSeconds),
                 end.number("seconds_per_exchanged_byte", 0, kMostSeconds)};
  end.finish();
  root.finish();
  return profile;
}

Profile read_profile(const std::string& path) {
  return parse_profile(read_text_file(path), path);
}

std::string to_toml(const Profile& profile) {
  const Model& model = profile.model;
  std::string text = fmt::format("format = \"{}\"\ncores = {}  # that the ranks share\n\n", kFormat,
                                 profile.cores);
  text += fmt::format("[model]\nfamily = \"{}\"\nhidden = {}\nheads = {}\nkv_heads = {}\n",
                      name_of(model.family), model.hidden, model.heads, model.kv_heads);
  text += fmt::format("head_dim = {}\nffn_hidden = {}\nvocab = {}\nsequence = {}\n", model.head_dim,
                      model.ffn_hidden, model.vocab, model.sequence);
  text += fmt::format("tied_embeddings = {}\ndtype = \"{}\"\nreduction = \"{}\"\n",
                      model.tied_embeddings, profile.dtype == Dtype::fp32 ? "fp32" : "bf16",
                      profile.reduction == Reduction::fast ? "fast" : "ordered");
  for (const Profile::MeasuredParts& row : profile.measured) {
    text += fmt::format("\n[[measured]]\ntensor = {}\nmicro_batch = {}\nthreads = {}\ncores = {}\n",
                        row.tensor, row.micro_batch, row.threads, toml_number(row.parts.cores));
    text += cost_table("layer", row.parts.layer) + cost_table("embedding", row.parts.embedding) +
            cost_table("head", row.parts.head);
  }
  const Profile::Message& message = profile.message;
  text += fmt::format("\n[message]\nhop_seconds = {}\nhop_seconds_per_byte = {}\n",
                      toml_number(message.hop_seconds), toml_number(message.hop_seconds_per_byte));
  text +=
      fmt::format("rank_seconds = {}\nrank_seconds_per_byte = {}\n",
                  toml_number(message.rank_seconds), toml_number(message.rank_seconds_per_byte));
  const Profile::StepEnd& end = profile.end;
  text += fmt::format("\n[step_end]\nseconds = {}\nseconds_per_peer = {}\n",
                      toml_number(end.seconds), toml_number(end.seconds_per_peer));
  text += fmt::format("seconds_per_parameter = {}\nseconds_per_exchanged_byte = {}\n",
                      toml_number(end.seconds_per_parameter),
                      toml_number(end.seconds_per_exchanged_byte));
  return text;
}

}  // namespace trireme
