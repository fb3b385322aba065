#include "bundle.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <initializer_list>
#include <nlohmann/json.hpp>

#include "error.h"

namespace deploy {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr int kSchemaVersion = 1;
constexpr int kMostPixels = 1 << 14;  // along a side of the model's input

[[noreturn]] void bad(const std::string& where, const std::string& problem) {
  throw RequestError("manifest.json: " + where + " " + problem);
}

const json& at(const json& object, const char* key, const std::string& where) {
  if (!object.is_object() || !object.contains(key)) bad(where + key, "is missing");
  return object.at(key);
}

int whole(const json& value, const std::string& where, int least, int most) {
  if (!value.is_number_integer() || value < least || value > most)
    bad(where, "should be a whole number from " + std::to_string(least) + " to " + std::to_string(most));
  return value.get<int>();
}

std::string text(const json& value, const std::string& where) {
  if (!value.is_string()) bad(where, "should be a string");
  return value.get<std::string>();
}

const json& list(const json& value, const std::string& where) {
  if (!value.is_array()) bad(where, "should be a list");
  return value;
}

void read_rgb(const json& value, const std::string& where, float (&into)[3]) {
  if (list(value, where).size() != 3) bad(where, "should have 3 entries");
  for (int i = 0; i < 3; ++i) {
    if (!value[i].is_number()) bad(where, "should hold numbers");
    into[i] = value[i].get<float>();
    if (!std::isfinite(into[i])) bad(where, "should hold finite numbers");
  }
}

Recipe read_recipe(const json& data) {
  const std::string where = "preprocess.";
  Recipe recipe{};
  recipe.crop = whole(at(data, "crop", where), where + "crop", 1, kMostPixels);
  if (const json& resize = at(data, "resize", where); !resize.is_null())
    recipe.resize = whole(resize, where + "resize", recipe.crop, kMostPixels);
  const std::string filter = text(at(data, "interpolation", where), where + "interpolation");
  if (filter == "bicubic") recipe.filter = Filter::bicubic;
  else if (filter == "bilinear") recipe.filter = Filter::bilinear;
  else if (filter == "bilinear-opencv") recipe.filter = Filter::bilinear_opencv;
  else bad(where + "interpolation", "is \"" + filter + "\", which this program does not know");
  read_rgb(at(data, "mean", where), where + "mean", recipe.mean);
  read_rgb(at(data, "std", where), where + "std", recipe.std);
  if (*std::min_element(recipe.std, recipe.std + 3) <= 0) bad(where + "std", "should be above zero");
  if (at(data, "layout", where) != "NCHW" || at(data, "color", where) != "RGB")
    bad("preprocess", "should have layout NCHW and color RGB");
  return recipe;
}

void check_tensor(const json& tensor, const std::string& where, const std::vector<int>& shape) {
  const bool fits = at(tensor, "dtype", where + ".") == "float32" && at(tensor, "shape", where + ".") == json(shape);
  if (!fits) bad(where, "should be float32 " + json(shape).dump() + ", -1 being the batch");
}

// A bundle may come from a stranger: no path in it may lead out of its folder.
void check_inside(const std::string& name) {
  const fs::path path(name);
  bool inside = !name.empty() && path.is_relative() && name.find('\0') == std::string::npos;
  for (const fs::path& part : path) inside = inside && part != "..";
  if (!inside) bad("artifacts", "names \"" + name + "\", which is not a path inside the bundle");
}

fs::path file(const fs::path& folder, const json& artifact, const std::string& suffix) {
  std::vector<std::string> found;
  for (const auto& [name, digest] : at(artifact, "files", "artifacts.").items())
    if (name.size() > suffix.size() && name.compare(name.size() - suffix.size(), suffix.size(), suffix) == 0)
      found.push_back(name);
  if (found.size() != 1)
    bad("artifacts", "should list one file ending in " + suffix + ", not " + std::to_string(found.size()));
  check_inside(found[0]);
  if (std::error_code ignored; !fs::is_regular_file(folder / found[0], ignored))
    throw RequestError((folder / found[0]).string() + ": missing from the bundle; export it again");
  return folder / found[0];
}

json read_manifest(const fs::path& folder) {
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored)) throw RequestError(folder.string() + ": no such bundle folder");
  std::ifstream stream(folder / "manifest.json", std::ios::binary);
  if (!stream) throw RequestError(folder.string() + ": not an exported bundle: it has no manifest.json");
  json data = json::parse(stream, nullptr, /*allow_exceptions=*/false);
  if (!data.is_object()) throw RequestError(folder.string() + ": manifest.json is not a JSON object");
  return data;
}

}  // namespace

Bundle open_bundle(const fs::path& folder, const std::string& format, const std::string& precision) {
  const json data = read_manifest(folder);
  if (at(data, "schema_version", "") != kSchemaVersion)
    bad("schema_version", "is " + data["schema_version"].dump() + "; this program reads " +
                              std::to_string(kSchemaVersion));
  Bundle bundle{};
  bundle.recipe = read_recipe(at(data, "preprocess", ""));
  bundle.classes = whole(at(at(data, "model", ""), "num_classes", "model."), "model.num_classes", 1, 1 << 24);

  const json& inputs = list(at(data, "inputs", ""), "inputs");
  if (inputs.size() != 1) bad("inputs", "should hold one tensor");
  bundle.input = text(at(inputs[0], "name", "inputs[0]."), "inputs[0].name");
  check_tensor(inputs[0], "inputs[0]", {-1, 3, bundle.recipe.crop, bundle.recipe.crop});
  const json& outputs = list(at(data, "outputs", ""), "outputs");
  const auto logits = std::find_if(outputs.begin(), outputs.end(), [](const json& output) {
    return at(output, "name", "outputs.") == "logits";
  });
  if (logits == outputs.end()) bad("outputs", "should hold logits");
  bundle.output = "logits";
  bundle.output_index = logits - outputs.begin();
  check_tensor(*logits, "logits", {-1, bundle.classes});

  if (data.contains("labels") && !data["labels"].is_null()) {
    for (const json& label : list(data["labels"], "labels")) bundle.labels.push_back(text(label, "labels"));
    if (static_cast<int>(bundle.labels.size()) != bundle.classes)
      bad("labels", "should name " + std::to_string(bundle.classes) + " classes");
  }

  std::string there;
  for (const json& artifact : list(at(data, "artifacts", ""), "artifacts")) {
    const std::string its_format = text(at(artifact, "format", "artifacts."), "artifacts.format");
    const std::string its_precision = text(at(artifact, "precision", "artifacts."), "artifacts.precision");
    there += (there.empty() ? "" : ", ") + its_format + " " + its_precision;
    if (its_format != format || its_precision != precision) continue;
    bundle.model = file(folder, artifact, format == "onnx" ? ".onnx" : ".json");
    if (format == "paddle") bundle.weights = file(folder, artifact, ".pdiparams");
    return bundle;
  }
  throw RequestError(folder.string() + ": holds no " + format + " model in " + precision + "; it holds " +
                     (there.empty() ? "none" : there));
}

}  // namespace deploy
