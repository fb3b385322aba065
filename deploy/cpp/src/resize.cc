#include "resize.h"

#include <algorithm>
#include <cmath>

namespace deploy {
namespace {

// One output pixel along one axis: a weighted sum of the source pixels from `first` on.
struct Taps {
  int first;
  std::vector<int32_t> weights;
};

// --- Pillow: the filter is stretched when the picture shrinks, so that every source pixel counts. ---------------
// Weights are fixed-point numbers of 22 bits; rows are resized first, and rounded to 8 bits in between.

constexpr int kPillowBits = 22;

double bicubic(double x) {  // Keys' cubic with a = -1/2
  x = std::abs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  if (x < 2) return ((-0.5 * x + 2.5) * x - 4) * x + 2;
  return 0;
}

double triangle(double x) { return std::max(0.0, 1 - std::abs(x)); }

std::vector<Taps> pillow_taps(int size, int target, int begin, int count, Filter filter) {
  const double scale = static_cast<double>(size) / target;
  const double stretch = std::max(scale, 1.0);
  const double reach = (filter == Filter::bicubic ? 2.0 : 1.0) * stretch;
  std::vector<Taps> taps(count);
  for (int i = 0; i < count; ++i) {
    const double centre = (begin + i + 0.5) * scale;
    const int first = std::max(0, static_cast<int>(centre - reach + 0.5));
    const int end = std::min(size, static_cast<int>(centre + reach + 0.5));
    std::vector<double> exact(end - first);
    double sum = 0;
    for (int j = first; j < end; ++j) {
      const double distance = (j - centre + 0.5) * (1 / stretch);
      sum += exact[j - first] = filter == Filter::bicubic ? bicubic(distance) : triangle(distance);
    }
    taps[i].first = first;
    for (double weight : exact) {
      const double fixed = (sum != 0 ? weight / sum : weight) * (1 << kPillowBits);
      taps[i].weights.push_back(static_cast<int32_t>(fixed + (fixed < 0 ? -0.5 : 0.5)));
    }
  }
  return taps;
}

uint8_t pillow_round(int32_t sum) { return static_cast<uint8_t>(std::clamp(sum >> kPillowBits, 0, 255)); }

Image pillow(const Image& image, int width, int height, const Box& box, Filter filter) {
  constexpr int32_t half = 1 << (kPillowBits - 1);
  const auto across = pillow_taps(image.width, width, box.left, box.width, filter);
  const auto down = pillow_taps(image.height, height, box.top, box.height, filter);
  const int top = down.front().first;  // of the source rows that matter
  const int bottom = down.back().first + static_cast<int>(down.back().weights.size());

  const size_t line = static_cast<size_t>(box.width) * 3;
  std::vector<uint8_t> narrow(line * (bottom - top));
  uint8_t* out = narrow.data();
  for (int y = top; y < bottom; ++y) {
    const uint8_t* row = &image.rgb[static_cast<size_t>(y) * image.width * 3];
    for (const Taps& tap : across) {
      int32_t r = half, g = half, b = half;
      const uint8_t* in = row + static_cast<size_t>(tap.first) * 3;
      for (int32_t weight : tap.weights) {
        r += in[0] * weight;
        g += in[1] * weight;
        b += in[2] * weight;
        in += 3;
      }
      *out++ = pillow_round(r);
      *out++ = pillow_round(g);
      *out++ = pillow_round(b);
    }
  }

  Image result{box.width, box.height, std::vector<uint8_t>(line * box.height)};
  std::vector<int32_t> sums(line);
  for (int y = 0; y < box.height; ++y) {
    std::fill(sums.begin(), sums.end(), half);
    const uint8_t* in = &narrow[line * (down[y].first - top)];
    for (int32_t weight : down[y].weights)
      for (size_t i = 0; i < line; ++i) sums[i] += *in++ * weight;
    std::transform(sums.begin(), sums.end(), &result.rgb[line * y], pillow_round);
  }
  return result;
}

// --- OpenCV, INTER_LINEAR: four neighbours whatever the scale. Weights of 11 bits, rows first. ------------------

struct Pair {
  int before, after;
  int32_t weights[2];
};

std::vector<Pair> opencv_pairs(int size, int target, int begin, int count, bool stop_at_last) {
  const double scale = 1 / (static_cast<double>(target) / size);  // not size / target, which may round otherwise
  std::vector<Pair> pairs;
  for (int i = begin; i < begin + count; ++i) {
    const float centre = static_cast<float>((i + 0.5) * scale - 0.5);
    const int before = static_cast<int>(std::floor(centre));
    float beyond = centre - static_cast<float>(before);
    if (stop_at_last && (before < 0 || before >= size - 1)) beyond = 0;
    pairs.push_back({std::clamp(before, 0, size - 1),
                     std::clamp(before + 1, 0, size - 1),
                     {static_cast<int32_t>(std::nearbyint((1 - beyond) * 2048)),
                      static_cast<int32_t>(std::nearbyint(beyond * 2048))}});
  }
  return pairs;
}

Image opencv(const Image& image, int width, int height, const Box& box) {
  // At the right border it moves a whole step to the last column; at the bottom it repeats the last row.
  const auto across = opencv_pairs(image.width, width, box.left, box.width, true);
  const auto down = opencv_pairs(image.height, height, box.top, box.height, false);
  Image result{box.width, box.height, {}};
  result.rgb.reserve(static_cast<size_t>(box.width) * box.height * 3);
  for (const Pair& y : down) {
    const uint8_t* above = &image.rgb[static_cast<size_t>(y.before) * image.width * 3];
    const uint8_t* below = &image.rgb[static_cast<size_t>(y.after) * image.width * 3];
    for (const Pair& x : across)
      for (int c = 0; c < 3; ++c) {
        const auto between = [&](const uint8_t* row) {
          return (row[x.before * 3 + c] * x.weights[0] + row[x.after * 3 + c] * x.weights[1]) >> 4;
        };
        const int32_t sum = (between(above) * y.weights[0] >> 16) + (between(below) * y.weights[1] >> 16) + 2;
        result.rgb.push_back(static_cast<uint8_t>(sum >> 2));
      }
  }
  return result;
}

}  // namespace

Image resize_and_crop(const Image& image, int width, int height, const Box& box, Filter filter) {
  if (filter == Filter::bilinear_opencv) return opencv(image, width, height, box);
  return pillow(image, width, height, box, filter);
}

}  // namespace deploy
