// What a program needs of an exported bundle: read from its manifest.json, checked, and nothing else of it.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace deploy {

enum class Filter { bicubic, bilinear, bilinear_opencv };

// From pixels to the model's input: resize, centre crop, (value / 255 - mean) / std for R, G and B.
struct Recipe {
  std::optional<int> resize;  // length of the short side; none: straight to crop x crop
  int crop;                   // side of the square that the model sees
  Filter filter;
  float mean[3];
  float std[3];
};

struct Bundle {
  std::filesystem::path model;    // inference.onnx or inference.json
  std::filesystem::path weights;  // inference.pdiparams; empty for ONNX
  std::string input;              // name of the float32 [batch, 3, crop, crop] input
  std::string output;             // name of the float32 [batch, classes] output
  size_t output_index;            // its place among the outputs
  int classes;
  std::vector<std::string> labels;  // a name for each class, or empty
  Recipe recipe;
};

// format: "onnx" or "paddle". precision: "fp32" or another that the bundle holds. Throws RequestError.
Bundle open_bundle(const std::filesystem::path& folder, const std::string& format, const std::string& precision);

}  // namespace deploy
