#include <gtest/gtest.h>

#include <map>

#include "planner/plan/job.h"
#include "topology/base/error.h"

// Each way to get a job file wrong, and the whole message that it earns.

namespace trireme {
namespace {

std::string complaint(const std::string& text) {
  try {
    parse_job(text, "j.toml", "/base");
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::bad_input);
    return e.what();
  }
  return "no complaint";
}

std::string model(const std::string& family, const std::string& changes = "") {
  return "[model]\nfamily = \"" + family +
         "\"\nlayers = 2\nhidden = 64\nheads = 4\nsequence = 32\n" + changes +
         "\n[training]\nglobal_batch = 8\nsteps = 10\n";
}

// A good job whose last table gets `lines`, which start at line 9 of the file; the header is line 8
// for [training].
std::string with_training(const std::string& lines) {
  return "[model]\nfamily = \"gpt2\"\nlayers = 2\nhidden = 64\nheads = 4\nsequence = "
         "32\n[training]\n" +
         lines;
}
std::string with(const std::string& table, const std::string& lines) {
  return with_training("global_batch = 8\nsteps = 10\n[" + table + "]\n" + lines);
}

TEST(JobErrors, TablesThatMustBeThere) {
  EXPECT_EQ(complaint(""), "j.toml:1:1: model: missing, expected a table [model]");
  EXPECT_EQ(complaint("model = 1\n"), "j.toml:1:9: model: found 1, expected a table");
  EXPECT_EQ(
      complaint("[model]\nfamily = \"gpt2\"\nlayers = 2\nhidden = 64\nheads = 4\nsequence = 32\n"),
      "j.toml:1:1: training: missing, expected a table [training]");
  EXPECT_EQ(complaint(model("gpt2") + "[trainig]\n"),
            "j.toml:11:2: trainig: found an unknown key; did you mean "
            "\"training\"?");
}

TEST(JobErrors, AMisspeltKeyThatMustBeThereIsPointedAt) {
  EXPECT_EQ(complaint("[mode]\n"),
            "j.toml:1:2: model: missing, expected a table [model]; found \"mode\": did you mean "
            "\"model\"?");
  EXPECT_EQ(complaint("[model]\nfamily = \"gpt2\"\nlayer = 2\n"),
            "j.toml:3:1: model.layers: missing, expected an integer from 1 to 100000; found "
            "\"layer\": did you mean \"layers\"?");
}

TEST(JobErrors, ModelKeys) {
  EXPECT_EQ(complaint("[model]\n"),
            "j.toml:1:1: model.family: missing, expected one of gpt2, llama");
  EXPECT_EQ(complaint(model("gpt3")),
            "j.toml:2:10: model.family: found \"gpt3\", expected one of gpt2, llama (did you "
            "mean \"gpt2\"?)");
  EXPECT_EQ(complaint("[model]\nfamily = \"gpt2\"\n"),
            "j.toml:1:1: model.layers: missing, expected an integer from 1 to 100000");
  EXPECT_EQ(complaint("[model]\nfamily = \"gpt2\"\nlayers = 0\n"),
            "j.toml:3:10: model.layers: found 0, expected an integer from 1 to 100000");
  EXPECT_EQ(complaint(model("gpt2", "hiden = 3")),
            "j.toml:7:1: model.hiden: found an unknown key; did you mean \"hidden\"?");
  EXPECT_EQ(complaint(model("gpt2", "rope_theta = 3")),
            "j.toml:7:1: model.rope_theta: found an unknown key; known keys are config, family, "
            "ffn_hidden, head_dim, "
            "heads, hidden, init_std, kv_heads, layers, norm_epsilon, positions, sequence, "
            "tied_embeddings, vocab, "
            "weights");
  EXPECT_EQ(complaint(model("gpt2", "tied_embeddings = 1")),
            "j.toml:7:19: model.tied_embeddings: found 1, expected true or false");
  EXPECT_EQ(complaint(model("gpt2", "norm_epsilon = 0")),
            "j.toml:7:16: model.norm_epsilon: found 0, expected a number from 1e-30 to 1");
}

TEST(JobErrors, DimensionsThatDoNotGoTogether) {
  EXPECT_EQ(
      complaint("[model]\nfamily = \"gpt2\"\nlayers = 2\nhidden = 64\nheads = 5\nsequence = 32\n"),
      "j.toml:5:9: model.heads: found 5, expected a divisor of hidden, which is 64");
  EXPECT_EQ(complaint(model("llama", "kv_heads = 3")),
            "j.toml:7:12: model.kv_heads: found 3, expected a divisor of heads, which is 4");
  EXPECT_EQ(complaint(model("llama", "head_dim = 15")),
            "j.toml:7:12: model.head_dim: found 15, expected an even number, because rotary "
            "positions turn pairs");
  EXPECT_EQ(complaint(model("gpt2", "positions = 16")),
            "j.toml:7:13: model.positions: found 16, expected at least sequence, which is 32");
}

TEST(JobErrors, OneSourceOfDimensions) {
  EXPECT_EQ(complaint(model("gpt2", "config = \"c.json\"")),
            "j.toml:7:10: model.config: found beside family, expected one of them to give the "
            "dimensions");
  EXPECT_EQ(complaint("[model]\nconfig = \"c.json\"\nlayers = 3\n"),
            "j.toml:3:10: model.layers: found without family, expected family and all dimensions, "
            "or none");
  EXPECT_EQ(complaint("[model]\nconfig = \"c.json\"\n"),
            "/base/c.json: cannot be read: No such file or directory");
  EXPECT_EQ(complaint("[model]\nweights = \"w\"\n"),
            "/base/w/config.json: cannot be read: No such file or directory");
}

TEST(JobErrors, BytesNeedTheirVocabulary) {
  EXPECT_EQ(complaint(model("gpt2", "vocab = 255")),
            "j.toml:7:9: model.vocab: found 255, expected at least 256 because data.format is "
            "\"text\" (bytes)");
  EXPECT_EQ(complaint(model("gpt2") + "[data]\npath = \"x\"\nformat = \"u16\"\n"),
            "j.toml:1:1: model.vocab: missing, expected an integer from 1 to 268435456");
}

TEST(JobErrors, Training) {
  EXPECT_EQ(complaint(with_training("steps = 1\n")),
            "j.toml:7:1: training.global_batch: missing, expected an integer from 1 to 1073741824");
  EXPECT_EQ(complaint(with_training("global_batch = 1\n")),
            "j.toml:7:1: training.steps: missing, expected an integer from 1 to 1073741824");
  const std::map<std::string, std::string> wrong = {
      {"seed = -1", "j.toml:10:8: training.seed: found -1, expected an integer of at least 0"},
      {"dtype = \"fp16\"",
       "j.toml:10:9: training.dtype: found \"fp16\", expected one of fp32, bf16"},
      {"learning_rate = -1",
       "j.toml:10:17: training.learning_rate: found -1, expected a number from 0 to 1000"},
      {"learning_rate = \"x\"",
       "j.toml:10:17: training.learning_rate: found \"x\", expected a number from 0 to 1000"},
      {"learning_rate = nan",
       "j.toml:10:17: training.learning_rate: found nan, expected a number from 0 to 1000"},
      {"learning_rate = inf",
       "j.toml:10:17: training.learning_rate: found inf, expected a number from 0 to 1000"},
      {"lr = 1", "j.toml:10:1: training.lr: found an unknown key; did you mean \"learning_rate\"?"},
      {"min_learning_rate = 0.1",
       "j.toml:10:21: training.min_learning_rate: found 0.1, expected at most "
       "learning_rate, which is 0.0003"},
      {"warmup_steps = 11",
       "j.toml:10:16: training.warmup_steps: found 11, expected at most steps, which is 10"},
      {"beta1 = 1", "j.toml:10:9: training.beta1: found 1, expected a number below 1"},
      {"beta2 = 1.5", "j.toml:10:9: training.beta2: found 1.5, expected a number from 0 to 1"},
      {"epsilon = 0", "j.toml:10:11: training.epsilon: found 0, expected a number from 1e-30 to 1"},
      {"reduction = \"ring\"",
       "j.toml:10:13: training.reduction: found \"ring\", expected one of ordered, fast, auto"},
  };
  for (const auto& [line, message] : wrong) {
    EXPECT_EQ(complaint(with_training("global_batch = 8\nsteps = 10\n" + line + "\n")), message);
  }
}

TEST(JobErrors, DataLayoutAndCheckpoint) {
  EXPECT_EQ(complaint(with("data", "path = \"\"\n")),
            "j.toml:11:8: data.path: found \"\", expected a file or a pattern like corpus/*.txt");
  EXPECT_EQ(complaint(with("data", "format = \"txt\"\n")),
            "j.toml:11:10: data.format: found \"txt\", expected one of text, u16, u32, llmc (did "
            "you mean \"text\"?)");
  EXPECT_EQ(complaint(with("data", "order = \"random\"\n")),
            "j.toml:11:9: data.order: found \"random\", expected one of sequential, shuffled");
  EXPECT_EQ(complaint(with("layout", "tensor = \"two\"\n")),
            "j.toml:11:10: layout.tensor: found \"two\", expected an integer from 1 to 1048576 or "
            "\"auto\"");
  EXPECT_EQ(complaint(with("layout", "tensor = 0\n")),
            "j.toml:11:10: layout.tensor: found 0, expected an integer from 1 to 1048576");
  EXPECT_EQ(complaint(with("layout", "schedule = \"interleave\"\n")),
            "j.toml:11:12: layout.schedule: found \"interleave\", expected one of naive, gpipe, "
            "pipedream, 1f1b, "
            "eager-1f1b, interleaved, breadth-first, zb-h1, zb-h2, interleaved-zb, zb-v, v-half, "
            "v-min, dualpipe-v, "
            "forward-only, auto (did you mean \"interleaved\"?)");
  EXPECT_EQ(
      complaint(with("layout", "sequence_parallel = \"yes\"\n")),
      "j.toml:11:21: layout.sequence_parallel: found \"yes\", expected true, false or \"auto\"");
  EXPECT_EQ(
      complaint(with("layout", "micro_batches = 3\n")),
      "j.toml:11:1: layout.micro_batches: found an unknown key; did you mean \"micro_batch\"?");
  EXPECT_EQ(complaint(with("checkpoint", "every = -1\n")),
            "j.toml:11:9: checkpoint.every: found -1, expected an integer from 0 to 1073741824");
  EXPECT_EQ(complaint(with("checkpoint", "each = 1\n")),
            "j.toml:11:1: checkpoint.each: found an unknown key; known keys are every, keep");
}

}  // namespace
}  // namespace trireme
