// The words, written and read.
#include "director/net/offload_text.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <utility>

namespace director {
namespace {

constexpr std::string_view kChecksum = "checksum left to the device (";
constexpr std::string_view kSuper = "super-frame of ";
constexpr std::string_view kSegments = "-byte segments (";
constexpr std::string_view kHeaders = ", headers ";
constexpr std::array<std::pair<Offload::Segments, std::string_view>, 3> kKinds{
    {{Offload::Segments::tcp4, "tcp4"}, {Offload::Segments::tcp6, "tcp6"}, {Offload::Segments::udp, "udp"}}};

/// Takes a number off the front.
bool take(std::string_view& text, std::uint16_t& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{}) return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return true;
}

bool take(std::string_view& text, std::string_view word) {
  if (!text.starts_with(word)) return false;
  text.remove_prefix(word.size());
  return true;
}

}  // namespace

std::string words_of(const Offload& offload) {
  std::string text;
  if (offload.checksum == Offload::Checksum::partial)
    text = fmt::format("{}{}+{})", kChecksum, offload.checksum_start, offload.checksum_offset);
  for (const auto& [kind, name] : kKinds)
    if (offload.segments == kind)
      text += fmt::format("{}{}{}{}{}{}{}{})", text.empty() ? "" : "; ", kSuper, offload.segment_size, kSegments, name,
                          offload.ecn ? " ecn" : "", kHeaders, offload.header_length);
  return text;
}

Offload offload_in(std::string_view text) {
  Offload offload;
  if (const std::size_t at = text.find(kChecksum); at != text.npos) {
    std::string_view rest = text.substr(at + kChecksum.size());
    if (take(rest, offload.checksum_start) && take(rest, "+") && take(rest, offload.checksum_offset))
      offload.checksum = Offload::Checksum::partial;
  }
  if (const std::size_t at = text.find(kSuper); at != text.npos) {
    std::string_view rest = text.substr(at + kSuper.size());
    if (!take(rest, offload.segment_size) || !take(rest, kSegments)) return offload;
    for (const auto& [kind, name] : kKinds)
      if (take(rest, name)) offload.segments = kind;
    offload.ecn = take(rest, " ecn");
    if (!take(rest, kHeaders) || !take(rest, offload.header_length)) offload.segments = Offload::Segments::none;
  }
  return offload;
}

}  // namespace director
