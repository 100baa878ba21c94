#include "planner/profile/profile.h"

#include <fmt/format.h>

#include <algorithm>

#include "planner/profile/line.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

// Part by part; cores lie between those of the two.
Profile::Parts between(const Line& line, const Profile::Parts& x, const Profile::Parts& y) {
  const double share = std::clamp(line.share_b, 0.0, 1.0);
  return {line.between(x.layer, y.layer), line.between(x.embedding, y.embedding),
          line.between(x.head, y.head), (1 - share) * x.cores + share * y.cores};
}

}  // namespace

std::optional<Profile::Parts> Profile::parts(int tensor, int micro_batch, int threads) const {
  std::vector<const MeasuredParts*> rows;
  for (const MeasuredParts& row : measured) {
    if (row.tensor == tensor && row.threads == threads) rows.push_back(&row);
  }
  if (rows.empty()) return std::nullopt;
  std::sort(rows.begin(), rows.end(),
            [](const auto* a, const auto* b) { return a->micro_batch < b->micro_batch; });
  std::vector<double> sizes;
  for (const MeasuredParts* row : rows) sizes.push_back(row->micro_batch);
  const Line line = line_through(sizes, micro_batch);
  return between(line, rows[line.a]->parts, rows[line.b]->parts);
}

void check_profile(const Profile& profile, const Job& job) {
  const auto differs = [&](const char* key, const auto& measured, const auto& wanted) {
    if (measured == wanted) return;
    throw Error(ErrorKind::bad_input,
                fmt::format("{}: was measured with {} = {}, the job has {}: make a profile of this "
                            "job with `trireme profile`",
                            profile.name, key, measured, wanted));
  };
  const Model &a = profile.model, &b = job.model;
  differs("family", std::string(name_of(a.family)), std::string(name_of(b.family)));
  differs("hidden", a.hidden, b.hidden);
  differs("heads", a.heads, b.heads);
  differs("kv_heads", a.kv_heads, b.kv_heads);
  differs("head_dim", a.head_dim, b.head_dim);
  differs("ffn_hidden", a.ffn_hidden, b.ffn_hidden);
  differs("vocab", a.vocab, b.vocab);
  differs("sequence", a.sequence, b.sequence);
  differs("tied_embeddings", a.tied_embeddings, b.tied_embeddings);
  const auto dtype = [](Dtype d) { return d == Dtype::fp32 ? "fp32" : "bf16"; };
  differs("dtype", std::string(dtype(profile.dtype)), std::string(dtype(job.training.dtype)));
  if (profile.accelerator) return;
  const auto reduction = [](Reduction r) { return r == Reduction::fast ? "fast" : "ordered"; };
  differs("reduction", std::string(reduction(profile.reduction)),
          std::string(reduction(job.training.reduction_on(true))));
}

}  // namespace trireme
