#include "planner/plan/job.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "topology/base/error.h"

namespace trireme {
namespace {

const std::string kSmall = R"([model]
family = "gpt2"
layers = 2
hidden = 64
heads = 4
sequence = 32
[training]
global_batch = 8
steps = 10
)";

Job parse(const std::string& text) {
  return parse_job(text, "j.toml", "/base");
}

TEST(Job, DefaultsAreTheDocumentedOnes) {
  const auto job = parse(kSmall);
  EXPECT_EQ(job.name, "job");
  EXPECT_EQ(job.model.kv_heads, 4);
  EXPECT_EQ(job.model.head_dim, 16);
  EXPECT_EQ(job.model.ffn_hidden, 256);
  EXPECT_EQ(job.model.vocab, 256);
  EXPECT_EQ(job.model.positions, 32);
  EXPECT_TRUE(job.model.tied_embeddings);
  EXPECT_EQ(job.model.norm_epsilon, 1e-5);
  EXPECT_EQ(job.data, Data{});
  EXPECT_EQ(job.checkpoint, Checkpoint{});
  EXPECT_EQ(job.pins, Pins{});
  Training training;
  training.global_batch = 8;
  training.steps = 10;
  EXPECT_EQ(job.training, training);
  EXPECT_EQ(job.weights, "");
}

TEST(Job, LlamaDefaultsDiffer) {
  const auto job = parse(
      "[model]\nfamily = \"llama\"\nlayers = 2\nhidden = 64\nheads = 4\nsequence = 32\n"
      "[training]\nglobal_batch = 8\nsteps = 10\n");
  EXPECT_FALSE(job.model.tied_embeddings);
  EXPECT_EQ(job.model.ffn_hidden, 192);  // 8/3 * 64 = 170.7, to a multiple of 32
  EXPECT_EQ(job.model.rope_theta, 10000);
}

TEST(Job, EveryKeyIsRead) {
  const auto job = parse(R"(name = "all"
[model]
family = "llama"
weights = "w"
layers = 2
hidden = 64
heads = 4
kv_heads = 2
head_dim = 8
ffn_hidden = 100
vocab = 1000
sequence = 32
positions = 64
tied_embeddings = true
norm_epsilon = 1e-6
rope_theta = 500000
init_std = 0.01
[training]
global_batch = 8
steps = 10
seed = 7
dtype = "bf16"
learning_rate = 1e-3
min_learning_rate = 1e-4
warmup_steps = 3
weight_decay = 0
beta1 = 0.8
beta2 = 0.9
epsilon = 1e-9
clip_grad = 0
reduction = "fast"
[data]
path = "../x/*.bin"
format = "llmc"
order = "sequential"
[layout]
tensor = 1
pipeline = 2
data = 3
chunks = 4
schedule = "zb-v"
micro_batch = 5
sequence_parallel = true
recompute = "selective"
optimizer_sharding = 1
[checkpoint]
every = 6
keep = 0
)");
  const Model model = {Family::llama, 2, 64, 4, 2, 8, 100, 1000, 32, 64, true, 1e-6, 500000, 0.01};
  const Training training = {8, 10,  7,   Dtype::bf16, 1e-3, 1e-4,           3,
                             0, 0.8, 0.9, 1e-9,        0,    Reduction::fast};
  const Pins pins = {1, 2, 3, 4, 5, 1, "zb-v", true, Recompute::selective};
  EXPECT_EQ(job.name, "all");
  EXPECT_EQ(job.weights, "/base/w");
  EXPECT_EQ(job.model, model);
  EXPECT_EQ(job.training, training);
  EXPECT_EQ(job.data, (Data{"/x/*.bin", DataFormat::llmc, SampleOrder::sequential}));
  EXPECT_EQ(job.pins, pins);
  EXPECT_EQ(job.checkpoint, (Checkpoint{6, 0}));
  EXPECT_EQ(parse(to_toml(job)), job);
}

TEST(Job, AutoLeavesTheChoiceOpen) {
  std::string layout = "[layout]\n";
  for (const auto* key : {"tensor", "pipeline", "data", "chunks", "schedule", "micro_batch",
                          "sequence_parallel", "recompute", "optimizer_sharding"}) {
    layout += std::string(key) + " = \"auto\"\n";
  }
  EXPECT_EQ(parse(kSmall + layout).pins, Pins{});
}

TEST(Job, PathsStartFromTheFilesDirectory) {
  const auto data = [](const std::string& path) {
    return parse(kSmall + "[data]\npath = \"" + path + "\"\n").data.path;
  };
  EXPECT_EQ(data("a/*.txt"), "/base/a/*.txt");
  EXPECT_EQ(data("../b"), "/b");
  EXPECT_EQ(data("/abs/[ab]?.txt"), "/abs/[ab]?.txt");
}

TEST(Job, WhatIsWrittenReadsBackEqual) {
  auto job = parse(kSmall);
  job.name = "quote \" backslash \\ ü";
  job.data.path = "/tab \t newline \n bell \x07";
  job.training.learning_rate = 0.1 + 0.2;
  job.pins.schedule = "1f1b";
  job.pins.sequence_parallel = false;
  EXPECT_EQ(parse(to_toml(job)), job);
}

TEST(Job, EveryShippedJobParses) {
  int count = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(TRIREME_SOURCE_DIR "/configs/jobs")) {
    const auto job = read_job(entry.path().string());
    EXPECT_EQ(job.name, entry.path().stem().string());
    EXPECT_EQ(parse(to_toml(job)), job);
    ++count;
  }
  EXPECT_GE(count, 4);
  EXPECT_EQ(total_parameters(read_job(TRIREME_SOURCE_DIR "/configs/jobs/gpt2-124m.toml").model),
            124'439'808);
  EXPECT_EQ(total_parameters(read_job(TRIREME_SOURCE_DIR "/configs/jobs/llama-7b.toml").model),
            6'738'415'616);
}

TEST(Pins, EachKeyIsSetAndUnset) {
  Pins pins;
  for (const auto* pin :
       {"tensor=8", "pipeline=4", "data=2", "chunks=3", "schedule=zb-h1", "micro_batch=16",
        "sequence_parallel=false", "recompute=full", "optimizer_sharding=1"}) {
    set_pin(pins, pin);
  }
  EXPECT_EQ(pins, (Pins{8, 4, 2, 3, 16, 1, "zb-h1", false, Recompute::full}));
  for (const auto* pin : {"tensor=auto", "pipeline=auto", "data=auto", "chunks=auto",
                          "schedule=auto", "micro_batch=auto", "sequence_parallel=auto",
                          "recompute=auto", "optimizer_sharding=auto"}) {
    set_pin(pins, pin);
  }
  EXPECT_EQ(pins, Pins{});
}

TEST(Pins, TwoValuesOfOneKeyAreAContradiction) {
  Pins pins;
  set_pins(pins, {"tensor=8", "pipeline=4", "tensor=8"});
  EXPECT_EQ(pins.tensor, 8);
  EXPECT_EQ(pins.pipeline, 4);
  try {
    set_pins(pins, {"tensor=8", "pipeline=4", "tensor=4"});
    ADD_FAILURE() << "no complaint";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::bad_input);
    EXPECT_STREQ(error.what(), "--pin tensor=4 contradicts --pin tensor=8");
  }
}

TEST(Pins, ComplaintsAreWhole) {
  const auto complaint = [](const char* text) -> std::string {
    Pins pins;
    try {
      set_pin(pins, text);
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::bad_input);
      EXPECT_EQ(pins, Pins{});
      return e.what();
    }
    return "no complaint";
  };
  EXPECT_EQ(complaint("tensor"), "--pin: found \"tensor\", expected key=value, as in tensor=2");
  EXPECT_EQ(complaint("tensors=2"),
            "--pin: found an unknown key \"tensors\"; did you mean \"tensor\"?");
  EXPECT_EQ(complaint("zebra=2"),
            "--pin: found an unknown key \"zebra\"; known keys are tensor, pipeline, data, chunks, "
            "schedule, micro_batch, "
            "sequence_parallel, recompute, recompute_ranks, optimizer_sharding, even_cut");
  for (const std::string value :
       {"", "0", "-1", "2x", "1048577", "99999999999999999999", "2.0", " 2"}) {
    EXPECT_EQ(
        complaint(("tensor=" + value).c_str()),
        "--pin tensor: found \"" + value + "\", expected an integer from 1 to 1048576 or auto");
  }
  EXPECT_EQ(complaint("optimizer_sharding=2"),
            "--pin optimizer_sharding: found \"2\", expected an integer from 0 to 1 or auto");
  EXPECT_EQ(complaint("schedule=1f1"),
            "--pin schedule: found \"1f1\", expected one of naive, gpipe, pipedream, 1f1b, "
            "eager-1f1b, interleaved, "
            "breadth-first, zb-h1, zb-h2, interleaved-zb, zb-v, v-half, v-min, dualpipe-v, "
            "forward-only (did you mean "
            "1f1b?) or auto");
  EXPECT_EQ(complaint("recompute=some"),
            "--pin recompute: found \"some\", expected one of none, selective, full or auto");
  EXPECT_EQ(complaint("sequence_parallel=1"),
            "--pin sequence_parallel: found \"1\", expected one of true, false or auto");
}

}  // namespace
}  // namespace trireme
