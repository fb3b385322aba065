// PNG by stb_image: lossless, so any decoder's pixels are the same.
#define STB_IMAGE_IMPLEMENTATION
#define STBI_ONLY_PNG
#define STBI_NO_STDIO
#define STBI_MAX_DIMENSIONS (1 << 30)  // the area is what counts, and is checked below
#include <stb_image.h>

#include <cmath>
#include <cstring>
#include <memory>

#include "error.h"
#include "image.h"

namespace deploy {
namespace {

template <typename T>
using Pixels = std::unique_ptr<T, decltype(&stbi_image_free)>;

[[noreturn]] void refuse() {
  throw RequestError("cannot be read as a PNG (" + std::string(stbi_failure_reason()) + ")");
}

uint32_t big_endian(const uint8_t* data) {
  return uint32_t{data[0]} << 24 | uint32_t{data[1]} << 16 | uint32_t{data[2]} << 8 | data[3];
}

int orientation_of(const std::vector<uint8_t>& file) {
  size_t place = 8;  // chunks after the signature: length, name, data, checksum
  while (place + 12 <= file.size()) {
    const size_t length = big_endian(&file[place]);
    if (length > file.size() - place - 12) break;
    if (std::memcmp(&file[place + 4], "eXIf", 4) == 0) return exif_orientation(&file[place + 8], length);
    place += 12 + length;
  }
  return 1;
}

void over_white(const uint8_t* rgba, uint8_t* rgb, size_t count) {
  for (; count > 0; --count, rgba += 4, rgb += 3)
    for (int c = 0; c < 3; ++c) rgb[c] = div255(rgba[c] * rgba[3] + 255 * (255 - rgba[3]));
}

}  // namespace

Image decode_png(const std::vector<uint8_t>& file, int& orientation) {
  const int size = static_cast<int>(file.size());
  Image image;
  int channels = 0;
  if (file.size() > (1u << 30)) throw RequestError("is larger than is safe to read");
  if (!stbi_info_from_memory(file.data(), size, &image.width, &image.height, &channels)) refuse();
  const int64_t count = static_cast<int64_t>(image.width) * image.height;
  if (count > kMaxPixels) throw RequestError("has more pixels than is safe to read");
  orientation = orientation_of(file);
  image.rgb.resize(static_cast<size_t>(count) * 3);

  if (channels == 1 && stbi_is_16_bit_from_memory(file.data(), size)) {
    const Pixels<stbi_us> grey(
        stbi_load_16_from_memory(file.data(), size, &image.width, &image.height, &channels, 1), stbi_image_free);
    if (!grey) refuse();
    for (int64_t i = 0; i < count; ++i)
      std::memset(&image.rgb[i * 3], static_cast<int>(std::nearbyint(grey.get()[i] / 257.0)), 3);
    return image;
  }
  const Pixels<stbi_uc> rgba(
      stbi_load_from_memory(file.data(), size, &image.width, &image.height, &channels, 4), stbi_image_free);
  if (!rgba) refuse();
  over_white(rgba.get(), image.rgb.data(), static_cast<size_t>(count));
  return image;
}

}  // namespace deploy
