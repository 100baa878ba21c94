#pragma once

#include <string>
#include <vector>

#include "planner/plan/model.h"

namespace trireme {

// One tensor of a Hugging Face checkpoint, in terms of our parameters: the parts stacked by rows,
// then transposed where Hugging Face keeps the layer as [in, out].
struct HuggingFaceTensor {
  std::string name;
  std::vector<std::string> parts;  // our names (runtime/model/parameters.h)
  bool transposed = false;
};

// All tensors of a model, as transformers names them for GPT2LMHeadModel and LlamaForCausalLM. A
// tied output head has no tensor of its own.
std::vector<HuggingFaceTensor> hugging_face_tensors(const Model& model);

}  // namespace trireme
