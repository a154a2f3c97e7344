// Bytes to parse_packet and parse_quoted: what they say must lie inside what they were given.
#include <cstdlib>
#include <cstring>
#include <vector>

#include "director/net/format.h"
#include "director/net/packet.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace director;
  if (size < 5 || size > 4096) return 0;
  // The first bytes choose the offload description, the rest is the frame, in memory of exactly its size.
  std::vector<std::byte> room(size - 4);
  std::memcpy(room.data(), data + 4, room.size());
  Frame frame;
  frame.storage = room;
  frame.resize(room.size());
  frame.offload.segments = static_cast<Offload::Segments>(data[0] % 4);
  frame.offload.checksum = data[0] >= 128 ? Offload::Checksum::partial : Offload::Checksum::complete;
  frame.offload.segment_size = data[1];
  frame.offload.checksum_start = data[2];
  frame.offload.checksum_offset = data[3];
  PacketView plain;
  const bool is_plain = read_plain(frame, plain);
  const auto view = parse_packet(frame);
  if (is_plain && (!view || plain.flow != view->flow)) std::abort();
  if (view && view->kind == PacketView::Kind::ip) {
    if (view->transport > frame.length || view->network + view->ip_length != frame.length) std::abort();
    (void)parse_quoted(frame.bytes().subspan(view->transport));
  }
  (void)packet_line(frame.bytes(), Detail::full, frame.offload);
  return 0;
}
