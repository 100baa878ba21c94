#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "planner/plan/job.h"
#include "topology/cluster.h"

namespace trireme {

// How the program that trains `job` works: what the job says of it, and where it is silent, what
// the published runs on such devices did (docs/planner.md, "What is assumed of a program").
//
// Where all accelerators are of before 2022, the year of FlashAttention (Dao et al.), those are the
// eager PyTorch programs of 2020 to 2023: gradients in 16 bits, reduced after the last backward,
// tensor collectives and sends in the open, 46 us of host time to issue a kernel; GPT models with
// unfused attention and dropout where sequences have at most 2048 tokens, Llama models with fused
// attention and plain element-wise operators. Everywhere else the defaults of Execution hold.
Execution execution_of(const Job& job, const Cluster& cluster);

// The job with every such choice made, for a plan that says what it rests on.
Job with_assumptions(Job job, const Cluster& cluster);

// That a program of older devices was assumed, in a sentence; empty where none was, or where the
// job says everything.
std::string assumptions(const Job& job, const Cluster& cluster);

// What is to be known of the devices of these node groups, in sentences: that one lacks the type of
// the products, or has other figures than the published runs on devices of its name.
std::vector<std::string> device_notes(const Job& job, const Cluster& cluster,
                                      const std::vector<size_t>& groups);

}  // namespace trireme
