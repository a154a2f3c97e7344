// The messages' bytes. Sources: ip_vs_sync.c (struct ip_vs_sync_v4, _v6, ip_vs_sync_conn_v0; ip_vs_process_message, ip_vs_proc_sync_conn).
#include "director/core/sync.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "director/net/endian.h"

namespace director {
namespace {

struct MessageHeader {
  std::uint8_t reserved;  // version 0 has its number of records here
  std::uint8_t sync_id;
  Be16 length;
  std::uint8_t records;
  std::uint8_t version;
  Be16 spare;
};
static_assert(sizeof(MessageHeader) == 8 && alignof(MessageHeader) == 1);

struct RecordHeader {  // of both families; three addresses follow
  std::uint8_t type;
  Protocol protocol;
  Be16 version_length;
  Be32 flags;
  Be16 state;
  Port client_port, virtual_port, real_port;
  Be32 mark;
  Be32 seconds;
};
static_assert(sizeof(RecordHeader) == 24 && alignof(RecordHeader) == 1);

struct OldRecord {
  std::uint8_t reserved;
  Protocol protocol;
  Port client_port, virtual_port, real_port;
  Be32 client, virtual_, real;
  Be16 flags;
  Be16 state;
};
static_assert(sizeof(OldRecord) == 24 && alignof(OldRecord) == 1);

constexpr std::uint8_t kVersion = 1;
constexpr std::uint8_t kIpv6 = 1;            // of type
constexpr std::uint16_t kLengthMask = 0x0fff;  // of version_length
constexpr std::uint8_t kSequenceData = 1;    // parameters: IPVS_OPT_*
constexpr std::uint8_t kEngineData = 2;
constexpr std::uint8_t kEngineName = 3;
constexpr std::uint8_t kOptional = 0x80;     // a parameter that may be skipped
constexpr std::size_t kSequenceBytes = 24;   // of version 0, behind its record
constexpr std::uint32_t kSequenceFlags = 0x0600;
constexpr std::size_t kMostName = 16;
constexpr std::size_t kMostData = 255;

template <typename T>
T value_at(std::span<const std::byte> bytes, std::size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

std::size_t padded(std::size_t n) {
  return (n + 3) & ~std::size_t{3};
}

IpAddress address_at(std::span<const std::byte> bytes, std::size_t at, Family family) {
  if (family == Family::ipv4) return IpAddress::v4(value_at<Be32>(bytes, at));
  return IpAddress::v6(value_at<std::array<std::uint8_t, 16>>(bytes, at));
}

/// The parameters behind a record's addresses; false: they make no sense.
bool read_parameters(std::span<const std::byte> bytes, SyncRecord& record) {
  while (!bytes.empty()) {
    if (bytes.size() < 2) return false;
    const auto kind = std::to_integer<std::uint8_t>(bytes[0]);
    const auto length = std::to_integer<std::size_t>(bytes[1]);
    if (length == 0 || 2 + length > bytes.size()) return false;
    const auto value = bytes.subspan(2, length);
    const auto text = [&] { return std::string{reinterpret_cast<const char*>(value.data()), value.size()}; };
    switch (kind & ~kOptional) {
      case kSequenceData:
        if (length != kSequenceBytes) return false;
        break;  // of helpers that change a stream's length; ours has none
      case kEngineData:
        if (length > kMostData || !record.engine_data.empty()) return false;
        record.engine_data = text();
        break;
      case kEngineName:
        if (length > kMostName || !record.engine.empty()) return false;
        record.engine = text();
        break;
      default:
        if ((kind & kOptional) == 0) return false;
    }
    bytes = bytes.subspan(2 + length);
  }
  return true;
}

/// REQUIRES: `bytes` is one record, as long as its header says.
std::optional<SyncRecord> read_record(std::span<const std::byte> bytes) {
  const auto header = value_at<RecordHeader>(bytes, 0);
  const Family family = (header.type & kIpv6) != 0 ? Family::ipv6 : Family::ipv4;
  const std::size_t size = family == Family::ipv4 ? 4 : 16;
  const std::size_t fixed = sizeof header + 3 * size;
  if (bytes.size() < fixed) return {};
  const auto address = [&](std::size_t which) { return address_at(bytes, sizeof header + which * size, family); };
  SyncRecord record;
  record.flow = {{address(0), header.client_port}, {address(1), header.virtual_port}, header.protocol};
  record.real = {address(2), header.real_port};
  record.flags = header.flags.host();
  record.state = header.state.host();
  record.mark = header.mark.host();
  record.timeout = std::chrono::seconds{header.seconds.host()};
  if (!read_parameters(bytes.subspan(fixed), record)) return {};
  return record;
}

SyncReading read_version_1(std::span<const std::byte> message, std::size_t records) {
  SyncReading reading;
  std::size_t at = sizeof(MessageHeader);
  for (std::size_t i = 0; i < records; ++i) {
    reading.whole = false;
    if (at + sizeof(RecordHeader) > message.size()) return reading;
    const std::uint16_t field = value_at<RecordHeader>(message, at).version_length.host();
    const std::size_t length = field & kLengthMask;
    if ((field & ~kLengthMask) != 0 || length < sizeof(RecordHeader) || at + length > message.size()) return reading;
    auto record = read_record(message.subspan(at, length));
    if (!record) return reading;
    reading.records.push_back(std::move(*record));
    at += padded(length);
    reading.whole = true;
  }
  return reading;
}

SyncReading read_version_0(std::span<const std::byte> message, std::size_t records) {
  SyncReading reading;
  std::size_t at = 4;
  for (std::size_t i = 0; i < records; ++i) {
    reading.whole = at + sizeof(OldRecord) <= message.size();
    if (!reading.whole) return reading;
    const auto old = value_at<OldRecord>(message, at);
    SyncRecord record;
    record.flow = {{IpAddress::v4(old.client), old.client_port}, {IpAddress::v4(old.virtual_), old.virtual_port}, old.protocol};
    record.real = {IpAddress::v4(old.real), old.real_port};
    record.flags = old.flags.host();
    record.state = old.state.host();
    reading.records.push_back(std::move(record));
    at += sizeof old + ((old.flags.host() & kSequenceFlags) != 0 ? kSequenceBytes : 0);
  }
  return reading;
}

/// What the kernel calls a protocol's states: TCP and SCTP in the order of State, from their first; UDP has one.
struct States {
  Protocol protocol;
  State first, last;
};
constexpr States kStates[] = {
    {Protocol::tcp, State::none, State::synack},
    {Protocol::udp, State::udp, State::udp},
};

}  // namespace

std::uint16_t sync_state(State state) {
  for (const States& s : kStates)
    if (state >= s.first && state <= s.last)
      return static_cast<std::uint16_t>(static_cast<unsigned>(state) - static_cast<unsigned>(s.first));
  return 0;
}

std::optional<State> state_of_sync(Protocol protocol, std::uint16_t number) {
  for (const States& s : kStates)
    if (s.protocol == protocol && number <= static_cast<unsigned>(s.last) - static_cast<unsigned>(s.first))
      return static_cast<State>(static_cast<unsigned>(s.first) + number);
  return {};
}

SyncMessage::SyncMessage(std::uint8_t sync_id) : bytes_(sizeof(MessageHeader)) {
  const MessageHeader header{0, sync_id, Be16{sizeof(MessageHeader)}, 0, kVersion, Be16{0}};
  std::memcpy(bytes_.data(), &header, sizeof header);
}

bool SyncMessage::add(const SyncRecord& record, std::size_t most) {
  const bool v6 = !record.flow.source.address.is_v4();
  std::size_t length = sizeof(RecordHeader) + 3 * (v6 ? 16 : 4);
  for (const std::string* parameter : {&record.engine_data, &record.engine})
    if (!parameter->empty()) length += 2 + parameter->size();
  const std::size_t at = padded(bytes_.size());
  if (records_ == UINT8_MAX || (records_ != 0 && at + length > most)) return false;

  bytes_.resize(at + length);
  const RecordHeader header{v6 ? kIpv6 : std::uint8_t{0},
                            record.flow.protocol,
                            Be16{static_cast<std::uint16_t>(length)},
                            Be32{record.flags},
                            Be16{record.state},
                            record.flow.source.port,
                            record.flow.target.port,
                            record.real.port,
                            Be32{record.mark},
                            Be32{static_cast<std::uint32_t>(
                                std::chrono::duration_cast<std::chrono::seconds>(record.timeout).count())}};
  std::byte* to = bytes_.data() + at;
  const auto write = [&to](const void* from, std::size_t n) {
    std::memcpy(to, from, n);
    to += n;
  };
  write(&header, sizeof header);
  for (const IpAddress* a : {&record.flow.source.address, &record.flow.target.address, &record.real.address})
    write(a->wire().data(), a->wire().size());
  for (const auto& [kind, parameter] : {std::pair{kEngineData, &record.engine_data}, {kEngineName, &record.engine}}) {
    if (parameter->empty()) continue;
    const std::uint8_t head[2] = {kind, static_cast<std::uint8_t>(parameter->size())};
    write(head, sizeof head);
    write(parameter->data(), parameter->size());
  }
  ++records_;
  const Be16 total{static_cast<std::uint16_t>(bytes_.size())};
  std::memcpy(bytes_.data() + offsetof(MessageHeader, length), &total, sizeof total);
  bytes_[offsetof(MessageHeader, records)] = std::byte{records_};
  return true;
}

SyncReading read_sync_message(std::span<const std::byte> message) {
  SyncReading nothing;
  nothing.whole = false;
  if (message.size() < 4) return nothing;
  MessageHeader header{};
  std::memcpy(&header, message.data(), std::min(message.size(), sizeof header));
  nothing.sync_id = header.sync_id;
  if (header.length.host() != message.size()) return nothing;
  const bool first = message.size() >= sizeof header && header.version == kVersion && header.reserved == 0 &&
                     header.spare == Be16{0};
  SyncReading reading = first ? read_version_1(message, header.records) : read_version_0(message, header.reserved);
  reading.sync_id = header.sync_id;
  return reading;
}

}  // namespace director
