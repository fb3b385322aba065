// The program: read images, run them in batches, print the best classes. The engine is linked in.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "arguments.h"
#include "bundle.h"
#include "engine.h"
#include "error.h"
#include "image.h"
#include "preprocess.h"
#include "report.h"

namespace deploy {
namespace {

class Stopwatch {
 public:
  double milliseconds() const {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// NumPy's format: a header padded to 64 bytes, then the numbers.
void save_npy(const std::string& path, const std::vector<float>& values, size_t images, int side) {
  std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (" + std::to_string(images) + ", 3, " +
                       std::to_string(side) + ", " + std::to_string(side) + "), }";
  header.resize((10 + header.size() + 1 + 63) / 64 * 64 - 10, ' ');
  header.back() = '\n';
  std::ofstream stream(path, std::ios::binary);
  stream.write("\x93NUMPY\x01\x00", 8).put(header.size() & 0xff).put(header.size() >> 8);
  stream << header;
  stream.write(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
  if (!stream.flush()) throw RequestError(path + ": cannot be written");
}

Timing measure(Engine& engine, const std::vector<float>& input, int batch, int runs, double prepare) {
  std::vector<double> times;
  for (int i = 0; i < runs; ++i) {
    const Stopwatch watch;
    engine.run(input, batch);
    times.push_back(watch.milliseconds());
  }
  std::sort(times.begin(), times.end());
  const double median = (times[(runs - 1) / 2] + times[runs / 2]) / 2;
  return {batch, runs, median, times.front(), times.back(), prepare};
}

Report classify(const Arguments& arguments) {
  const Bundle bundle = open_bundle(arguments.bundle, kEngineFormat, arguments.precision);
  const auto engine = open_engine(bundle, arguments.threads, arguments.gpu);
  Report report{kEngineFormat, engine->version(), arguments.precision, arguments.gpu ? "gpu" : "cpu",
                arguments.threads, {}, {}};
  const size_t size = size_t{3} * bundle.recipe.crop * bundle.recipe.crop;
  std::vector<float> all;
  for (size_t first = 0; first < arguments.images.size(); first += arguments.batch) {
    const int batch = static_cast<int>(std::min<size_t>(arguments.batch, arguments.images.size() - first));
    const Stopwatch watch;
    std::vector<float> input(size * batch);
    for (int i = 0; i < batch; ++i) {
      const std::string& path = arguments.images[first + i];
      try {
        preprocess(load_image(path), bundle.recipe, &input[size * i]);
      } catch (const RequestError& error) {
        throw RequestError(path + ": " + error.what());
      }
    }
    const double prepare = watch.milliseconds() / batch;
    const std::vector<float> logits = engine->run(input, batch);
    if (logits.size() != static_cast<size_t>(batch) * bundle.classes)
      throw EngineError("the model does not answer as its manifest says; export the bundle again");
    for (int i = 0; i < batch; ++i)
      report.answers.push_back({arguments.images[first + i],
                                best(&logits[static_cast<size_t>(i) * bundle.classes], bundle.classes,
                                     arguments.top, bundle.labels)});
    if (first == 0 && arguments.repeat > 0)
      report.timing.push_back(measure(*engine, input, batch, arguments.repeat, prepare));
    if (!arguments.dump_input.empty()) all.insert(all.end(), input.begin(), input.end());
  }
  if (!arguments.dump_input.empty())
    save_npy(arguments.dump_input, all, arguments.images.size(), bundle.recipe.crop);
  return report;
}

int fail(const std::exception& error, int status) {
  std::cerr << "error: " << one_line(error.what()) << "\n";
  return status;
}

}  // namespace

std::string one_line(const std::string& text) {
  std::string line;
  for (char c : text)
    if (c != '\n' && c != '\r' && c != '\t') line += c;
    else if (!line.empty() && line.back() != ' ') line += ' ';
  line = line.substr(0, 400);
  return line.substr(0, line.find_last_not_of(' ') + 1);
}

}  // namespace deploy

int main(int count, char** values) {
  using namespace deploy;
  try {
    const Arguments arguments = parse(count, values);
    if (arguments.help) {
      std::cout << usage(std::filesystem::path(values[0]).filename().string());
      return 0;
    }
    const Report report = classify(arguments);
    std::cout << (arguments.json ? as_json(report) : as_text(report)) << std::flush;
    return std::cout ? 0 : 1;
  } catch (const RequestError& error) {
    return fail(error, 2);
  } catch (const std::exception& error) {
    return fail(error, 1);
  }
}
