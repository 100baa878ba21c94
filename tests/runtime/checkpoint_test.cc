#include "runtime/checkpoint/checkpoint.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "runtime/checkpoint/safetensors.h"
#include "tests/runtime/support.h"

namespace trireme::test {
namespace {

namespace fs = std::filesystem;

// Six steps, saved after three by `saver`, continued by `loader`, must equal six steps without a
// break.
void resumes_with_the_same_numbers(const Job& job, const Degrees& saver, const Degrees& loader,
                                   bool same_bits) {
  const TemporaryDirectory run;
  fs::create_directories(run.path() + "/checkpoints");
  const auto whole = run_in_memory(plan_for(job, loader));
  RunOptions first;
  first.until_step = 3;
  first.save_into = run.path();
  run_in_memory(plan_for(job, saver), first);
  RunOptions second;
  second.checkpoint_path = RunDirectory{run.path()}.checkpoint(3);
  const auto resumed = run_in_memory(plan_for(job, loader), second);
  ASSERT_EQ(resumed.reports.size(), 3U);
  for (size_t i = 0; i < 3; ++i) {
    const double found = resumed.reports[i].loss;
    const double wanted = whole.reports[3 + i].loss;
    EXPECT_EQ(resumed.reports[i].step, static_cast<int>(3 + i));
    if (same_bits) {
      EXPECT_EQ(found, wanted) << to_string(saver) << " then " << to_string(loader);
    } else {
      EXPECT_NEAR(found / wanted, 1, 1e-6) << to_string(saver) << " then " << to_string(loader);
    }
  }
  if (same_bits) {
    EXPECT_TRUE(resumed.weights == whole.weights);
  }
}

TEST(Checkpoint, ResumingChangesNoBitOnTheSameLayout) {
  resumes_with_the_same_numbers(tiny_gpt(6), {}, {}, true);
  resumes_with_the_same_numbers(tiny_llama(6), {2, 2, 2, 2, "interleaved", 1},
                                {2, 2, 2, 2, "interleaved", 1}, true);
}

TEST(Checkpoint, ResumingOnAnotherPipelineAndDataLayoutChangesNoBit) {
  resumes_with_the_same_numbers(tiny_gpt(6), {1, 4, 1, 1, "1f1b", 1},
                                {1, 2, 3, 2, "interleaved", 1}, true);
  resumes_with_the_same_numbers(tiny_llama(6), {2, 1, 2, 1, "gpipe", 1}, {2, 3, 1, 1, "1f1b", 1},
                                true);
}

TEST(Checkpoint, ResumingOnAnotherTensorDegreeStaysWithinRounding) {
  resumes_with_the_same_numbers(tiny_gpt(6), {4, 1, 1, 1, "1f1b", 1}, {1, 2, 1, 1, "1f1b", 1},
                                false);
  resumes_with_the_same_numbers(tiny_llama(6), {1, 2, 1, 1, "1f1b", 1}, {4, 1, 1, 1, "1f1b", 1},
                                false);
}

class SavedCheckpoint : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(run_.path() + "/checkpoints");
    save(2);
  }
  void save(int step) {
    RunOptions options;
    options.until_step = step;
    options.save_into = run_.path();
    Job job = tiny_gpt(6);
    job.checkpoint.keep = 2;
    run_in_memory(plan_for(job, {1, 2, 1, 1, "1f1b", 1}), options);
  }
  std::string directory(int step) const { return RunDirectory{run_.path()}.checkpoint(step); }
  TemporaryDirectory run_;
};

TEST_F(SavedCheckpoint, ManifestNamesEveryTensorFileWithItsSize) {
  const auto manifest = nlohmann::json::parse(read_text_file(directory(2) + "/manifest.json"));
  EXPECT_EQ(manifest.at("step"), 2);
  EXPECT_EQ(manifest.at("files").size(), 4U);  // model and optimizer of two pipeline ranks
  for (const auto& file : manifest.at("files")) {
    EXPECT_EQ(fs::file_size(directory(2) + "/" + file.at("name").get<std::string>()),
              file.at("bytes").get<uint64_t>());
    EXPECT_EQ(file.at("sha256").get<std::string>().size(), 64U);
  }
}

TEST_F(SavedCheckpoint, IndexNamesTheFileOfEveryTensor) {
  const auto index =
      nlohmann::json::parse(read_text_file(directory(2) + "/model.safetensors.index.json"));
  int tensors = 0;
  for (const auto& [name, file] : index.at("weight_map").items()) {
    const SafetensorsFile shard(directory(2) + "/" + file.get<std::string>());
    EXPECT_EQ(shard.tensors().count(name), 1U) << name;
    ++tensors;
  }
  EXPECT_EQ(tensors,
            2 + 8 * 12 + 2);  // embeddings, twelve tensors in each of eight layers, final norm
}

TEST_F(SavedCheckpoint, OnlyTheNewestAreKept) {
  save(3);
  save(4);
  EXPECT_FALSE(fs::exists(directory(2)));
  EXPECT_TRUE(fs::exists(directory(3)));
  EXPECT_TRUE(fs::exists(directory(4)));
}

TEST_F(SavedCheckpoint, WhatAKilledRunLeftHalfWrittenIsRemovedAndNothingElse) {
  fs::create_directories(run_.path() + "/checkpoints/.partial-step-00000009");
  std::ofstream(run_.path() + "/checkpoints/.partial-step-00000009/model.safetensors") << "half";
  remove_partial_checkpoints({run_.path()});
  EXPECT_FALSE(fs::exists(run_.path() + "/checkpoints/.partial-step-00000009"));
  EXPECT_TRUE(fs::exists(directory(2)));
}

TEST_F(SavedCheckpoint, AModelOfAnotherShapeIsRefusedByTensorName) {
  Job other = tiny_gpt(6);
  other.model.ffn_hidden = 52;
  RunOptions options;
  options.checkpoint_path = directory(2);
  try {
    run_in_memory(plan_for(other, {}), options);
    FAIL() << "it loaded";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::bad_input);
    EXPECT_NE(std::string(e.what()).find(
                  "transformer.h.0.mlp.c_fc.weight: found shape [24, 50], expected [24, 52]"),
              std::string::npos)
        << e.what();
  }
}

TEST(Safetensors, ATruncatedFileIsRefusedAtEveryLength) {
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/t.safetensors";
  SafetensorsWriter writer(path, {{"a", {2, 3}}, {"b", {4}}});
  writer.write(std::vector<float>{1, 2, 3, 4, 5, 6});
  writer.write(std::vector<float>{7, 8, 9, 10});
  writer.close();
  const std::string bytes = read_text_file(path);
  for (size_t length = 0; length < bytes.size(); ++length) {
    const std::string cut = directory.path() + "/cut.safetensors";
    std::ofstream(cut, std::ios::binary | std::ios::trunc) << bytes.substr(0, length);
    EXPECT_THROW(SafetensorsFile file(cut), Error) << length;
  }
  const SafetensorsFile file(path);
  std::vector<float> middle(3);
  file.read(file.tensors().at("a"), 2, middle);
  EXPECT_EQ(middle, (std::vector<float>{3, 4, 5}));
}

}  // namespace
}  // namespace trireme::test
