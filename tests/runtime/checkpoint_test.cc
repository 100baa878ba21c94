#include "runtime/checkpoint/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "runtime/checkpoint/safetensors.h"
#include "runtime/comm/communicator.h"
#include "tests/runtime/support.h"

namespace trireme::test {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

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

TEST_F(SavedCheckpoint, ManifestNamesEveryFileWithItsSize) {
  const auto manifest = nlohmann::json::parse(read_text_file(directory(2) + "/manifest.json"));
  EXPECT_EQ(manifest.at("step"), 2);
  // Model and optimizer of two pipeline ranks, the index and config.json; but not itself.
  EXPECT_EQ(manifest.at("files").size(), 6U);
  const fs::directory_iterator all(directory(2));
  EXPECT_EQ(std::distance(begin(all), end(all)), 7);
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

std::string refusal(const Plan& plan, const RunOptions& options) {
  return message_of(ErrorKind::bad_input, [&] { run_in_memory(plan, options); });
}

TEST_F(SavedCheckpoint, WeightsOfAnotherShapeAreRefusedByTensorName) {
  Job other = tiny_gpt(6);
  other.model.ffn_hidden = 52;
  other.weights = directory(2);
  EXPECT_THAT(
      refusal(plan_for(other, {}), {}),
      HasSubstr("transformer.h.0.mlp.c_fc.weight: found shape [24, 50], expected [24, 52]"));
}

// Its tensors have the same shapes.
TEST_F(SavedCheckpoint, AnotherModelIsRefusedByWhatDiffers) {
  Job other = tiny_gpt(6);
  ASSERT_NE(other.model.heads, 4);
  other.model.heads = other.model.kv_heads = 4;
  RunOptions options;
  options.checkpoint_path = directory(2);
  EXPECT_THAT(refusal(plan_for(other, {}), options),
              HasSubstr("config.json: n_head: found 6, expected 4, which the job says"));
}

// Beside those of a model in two parts, which its index names, lies one of a model in three.
TEST_F(SavedCheckpoint, TheIndexSaysWhichFilesAreTheModel) {
  Job job = tiny_gpt(6);
  const std::string other = run_.path() + "/other";
  fs::create_directories(other + "/checkpoints");
  RunOptions into_other;
  into_other.until_step = 1;
  into_other.save_into = other;
  run_in_memory(plan_for(job, {1, 3, 1, 1, "1f1b", 1}), into_other);
  const std::string stale = "/model-00001-of-00003.safetensors";
  fs::copy_file(RunDirectory{other}.checkpoint(1) + stale, directory(2) + stale);
  job.weights = directory(2);
  const auto with = run_in_memory(plan_for(job, {}));
  fs::remove(directory(2) + stale);
  expect_same_bits(with, run_in_memory(plan_for(job, {})), "with a stale file");
  fs::copy_file(directory(2) + "/model-00001-of-00002.safetensors",
                directory(2) + "/model-2.safetensors");
  fs::remove(directory(2) + "/model.safetensors.index.json");
  EXPECT_THAT(refusal(plan_for(job, {}), {}), HasSubstr("expected it once"));
}

// Counts the shards that its rank has sent to the writer and not heard of again.
class CountingTransport final : public Transport {
 public:
  CountingTransport(std::unique_ptr<Transport> inner, std::pair<int, int>& sent_and_most)
      : inner_(std::move(inner)), count_(sent_and_most) {}
  Rank rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  void send(Rank to, uint64_t tag, std::span<const float> data,
            std::shared_ptr<const void> keep) override {
    if (tag == make_tag(TagSpace::checkpoint, 1)) {
      count_.second = std::max(count_.second, ++count_.first);
    }
    inner_->send(to, tag, data, std::move(keep));
  }
  std::unique_ptr<Work> receive(Rank from, uint64_t tag, std::span<float> into) override {
    if (tag == make_tag(TagSpace::checkpoint, 3)) --count_.first;
    return inner_->receive(from, tag, into);
  }

 private:
  std::unique_ptr<Transport> inner_;
  std::pair<int, int>& count_;
};

TEST(Checkpoint, NoMoreThanTwoShardsOfATensorRankAreOnTheirWay) {
  const TemporaryDirectory run;
  fs::create_directories(run.path() + "/checkpoints");
  std::vector<std::pair<int, int>> counts(3);
  RunOptions options;
  options.save_into = run.path();
  options.wrap = [&](std::unique_ptr<Transport> inner) -> std::unique_ptr<Transport> {
    auto& count = counts[static_cast<size_t>(inner->rank().value)];
    return std::make_unique<CountingTransport>(std::move(inner), count);
  };
  run_in_memory(plan_for(tiny_llama(1), {3, 1, 1, 1, "1f1b", 1}), options);
  EXPECT_EQ(counts[0], std::pair(0, 0));  // the writer
  EXPECT_EQ(counts[1], std::pair(0, 2));
  EXPECT_EQ(counts[2], std::pair(0, 2));
}

TEST(Safetensors, TensorsThatDoNotLieInTheFileAreRefused) {
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/t.safetensors";
  const auto opens = [&](const std::string& shape, const std::string& offsets) {
    const std::string header =
        R"({"a":{"dtype":"F32","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
    const uint64_t size = header.size();
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(&size), sizeof size);
    file << header << std::string(16, '\0');
    file.close();
    try {
      const SafetensorsFile read(path);
      return true;
    } catch (const Error&) {
      return false;
    }
  };
  EXPECT_TRUE(opens("[2,2]", "[0,16]"));
  EXPECT_FALSE(opens("[2,2]", "[0,20]"));
  EXPECT_FALSE(opens("[2,2]", "[4,20]"));
  EXPECT_FALSE(opens("[2,2]", "[-32,-16]"));
  EXPECT_FALSE(opens("[2,2]", "[16,0]"));
  EXPECT_FALSE(opens("[-2,-2]", "[0,16]"));
  EXPECT_FALSE(opens("[4611686018427387904,4]", "[0,0]"));  // 2^64 elements
  EXPECT_FALSE(opens("[0]", "[18446744073709551600,18446744073709551600]"));
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
