#include "image.h"

#include <cstring>
#include <filesystem>
#include <fstream>

#include "error.h"

namespace deploy {
namespace {

std::vector<uint8_t> read_file(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) throw RequestError("no such file");
  if (!std::filesystem::is_regular_file(path, error)) throw RequestError("is not a file");
  std::ifstream stream(path, std::ios::binary);
  const auto size = std::filesystem::file_size(path, error);
  std::vector<uint8_t> bytes(error ? 0 : size);
  if (error || !stream || !stream.read(reinterpret_cast<char*>(bytes.data()), bytes.size()))
    throw RequestError("cannot be read");
  if (bytes.empty()) throw RequestError("is empty");
  return bytes;
}

bool begins(const std::vector<uint8_t>& file, const char* magic, size_t size) {
  return file.size() >= size && std::memcmp(file.data(), magic, size) == 0;
}

// Exif's eight orientations: where the upright picture's pixel (x, y) is in the stored one. From 5 on, width and
// height are exchanged.
Image upright(Image stored, int orientation) {
  if (orientation == 1) return stored;
  const bool turned = orientation >= 5;
  const bool right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool down = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  Image image;
  image.width = turned ? stored.height : stored.width;
  image.height = turned ? stored.width : stored.height;
  image.rgb.resize(stored.rgb.size());
  uint8_t* out = image.rgb.data();
  for (int y = 0; y < image.height; ++y) {
    for (int x = 0; x < image.width; ++x, out += 3) {
      int column = turned ? y : x, row = turned ? x : y;
      if (right) column = stored.width - 1 - column;
      if (down) row = stored.height - 1 - row;
      std::memcpy(out, &stored.rgb[(static_cast<size_t>(row) * stored.width + column) * 3], 3);
    }
  }
  return image;
}

}  // namespace

int exif_orientation(const uint8_t* data, size_t size) {
  if (size < 8 || (std::memcmp(data, "II*\0", 4) != 0 && std::memcmp(data, "MM\0*", 4) != 0)) return 1;
  const bool little = data[0] == 'I';
  const auto number = [&](size_t place, int bytes) {
    uint32_t value = 0;
    for (int i = 0; i < bytes; ++i) value = value << 8 | data[place + (little ? bytes - 1 - i : i)];
    return value;
  };
  const size_t directory = number(4, 4);
  if (directory + 2 > size) return 1;
  const size_t entries = number(directory, 2);
  for (size_t place = directory + 2; place + 12 <= size && place < directory + 2 + entries * 12; place += 12) {
    const uint32_t type = number(place + 2, 2);
    if (number(place, 2) != 0x0112 || (type != 3 && type != 4)) continue;
    const uint32_t value = number(place + 8, type == 3 ? 2 : 4);
    return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

Image load_image(const std::string& path) {
  const std::vector<uint8_t> file = read_file(path);
  int orientation = 1;
  Image image;
  if (begins(file, "\xff\xd8\xff", 3)) image = decode_jpeg(file, orientation);
  else if (begins(file, "\x89PNG\r\n\x1a\n", 8)) image = decode_png(file, orientation);
  else throw RequestError("not a JPEG or PNG image");
  return upright(std::move(image), orientation);
}

}  // namespace deploy
