#pragma once

// The largest values that files and flags may name. Far above anything that exists, and low enough
// that products of a few of them stay within 64 bits and that a slip of the keyboard is told at
// once.
namespace trireme::limits {

inline constexpr int kRanks = 1 << 20;
inline constexpr int kDegree = 1 << 20;  // tensor, pipeline, data
inline constexpr int kChunks = 1 << 10;
inline constexpr int kMicroBatch = 1 << 20;
inline constexpr int kStages = 1 << 20;
inline constexpr int kBatch = 1 << 30;  // samples of a step
inline constexpr int kSteps = 1 << 30;

inline constexpr int kLayers = 100'000;
inline constexpr int kHidden = 1 << 20;
inline constexpr int kHeads = 1 << 14;
inline constexpr int kHeadDim = 1 << 14;
inline constexpr int kFfnHidden = 1 << 24;
inline constexpr int kVocab = 1 << 28;
inline constexpr int kSequence = 1 << 28;

}  // namespace trireme::limits
