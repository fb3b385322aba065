// An image file -> 8-bit RGB pixels, upright, as Pillow gives them to the Python side.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace deploy {

constexpr int64_t kMaxPixels = 178'956'970;  // as the Python side: more may be a decompression bomb

struct Image {
  int width = 0;
  int height = 0;
  std::vector<uint8_t> rgb;  // [height][width][3]
};

// JPEG (grey, colour or CMYK) or PNG (any kind; transparency is laid over white). Exif orientation is applied,
// colour profiles are not. Throws RequestError.
Image load_image(const std::string& path);

// Decoders: of a whole file in memory. `orientation` is Exif's, 1 to 8. They throw RequestError.
Image decode_jpeg(const std::vector<uint8_t>& file, int& orientation);
Image decode_png(const std::vector<uint8_t>& file, int& orientation);

// Orientation in an Exif block, which begins with its TIFF header; 1 if it says none or makes no sense.
int exif_orientation(const uint8_t* data, size_t size);

// x / 255 to the nearest, for x up to 255 * 255, in the integer arithmetic that Pillow uses.
inline int div255(int x) { return ((x + 128) + ((x + 128) >> 8)) >> 8; }

}  // namespace deploy
