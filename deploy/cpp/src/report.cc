#include "report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <numeric>

#include "error.h"

namespace deploy {
namespace {

std::string number(double value, int decimals) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", decimals, value);
  return text;
}

// Characters, not bytes, of UTF-8.
size_t width(const std::string& text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; });
}

}  // namespace

std::vector<Guess> best(const float* logits, int classes, int count, const std::vector<std::string>& labels) {
  if (!std::all_of(logits, logits + classes, [](float logit) { return std::isfinite(logit); }))
    throw EngineError("the model answered with something that is not a number");
  std::vector<int> order(classes);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return logits[a] > logits[b]; });
  const double most = logits[order[0]];
  const double sum = std::accumulate(logits, logits + classes, 0.0, [&](double total, float logit) {
    return total + std::exp(logit - most);
  });
  std::vector<Guess> guesses;
  for (int i = 0; i < std::min(count, classes); ++i) {
    const int index = order[i];
    const std::string label = labels.empty() ? "class " + std::to_string(index) : labels[index];
    guesses.push_back({index, label, std::exp(logits[index] - most) / sum});
  }
  return guesses;
}

std::string as_text(const Report& report) {
  std::string text;
  for (const Answer& answer : report.answers) {
    text += answer.path + " (" + report.runtime + " " + report.version + ")\n";
    size_t widest = 0;
    for (const Guess& guess : answer.top) widest = std::max(widest, width(guess.label));
    for (const Guess& guess : answer.top)
      text += "  " + guess.label + std::string(widest - width(guess.label), ' ') + "  " +
              number(guess.probability, 4) + "\n";
  }
  for (const Timing& timing : report.timing)
    text += "batch " + std::to_string(timing.batch) + ", " + report.precision + ", " + report.device + ", " +
            std::to_string(report.threads) + " threads: median " + number(timing.median, 1) + " ms of " +
            std::to_string(timing.runs) + " runs (" + number(timing.fastest, 1) + " to " +
            number(timing.slowest, 1) + "), " + number(timing.batch * 1000 / timing.median, 1) +
            " images/s; reading an image " + number(timing.prepare, 1) + " ms\n";
  return text;
}

std::string as_json(const Report& report) {
  nlohmann::ordered_json data = {{"runtime", report.runtime},     {"version", report.version},
                                 {"precision", report.precision}, {"device", report.device},
                                 {"threads", report.threads},     {"images", nlohmann::json::array()}};
  for (const Answer& answer : report.answers) {
    nlohmann::ordered_json top = nlohmann::json::array();
    for (const Guess& guess : answer.top)
      top.push_back({{"index", guess.index}, {"label", guess.label}, {"probability", guess.probability}});
    data["images"].push_back({{"path", answer.path}, {"top", top}});
  }
  data["timing"] = nullptr;
  for (const Timing& timing : report.timing)
    data["timing"] = {{"batch", timing.batch},           {"runs", timing.runs},
                      {"median_ms", timing.median},      {"fastest_ms", timing.fastest},
                      {"slowest_ms", timing.slowest},    {"images_per_s", timing.batch * 1000 / timing.median},
                      {"prepare_ms", timing.prepare}};
  return data.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace deploy
