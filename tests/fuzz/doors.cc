// A script of frames, changes and ticks through all three doors. Whatever leaves must be a whole IP packet or ARP, and time may only
// end things.
#include <cstdlib>
#include <cstring>
#include <vector>

#include "director/core/balancer.h"
#include "director/net/checksum.h"

namespace {

using namespace director;

/// Takes the script's bytes one after another; zeros when it is over.
class Script {
 public:
  Script(const std::uint8_t* data, std::size_t size) : data_(data, data + size) {}
  [[nodiscard]] bool over() const { return at_ >= data_.size(); }
  std::uint8_t byte() { return over() ? std::uint8_t{0} : data_[at_++]; }
  std::span<const std::uint8_t> take(std::size_t n) {
    n = std::min(n, data_.size() - std::min(at_, data_.size()));
    const auto piece = std::span{data_}.subspan(at_, n);
    at_ += n;
    return piece;
  }

 private:
  std::vector<std::uint8_t> data_;
  std::size_t at_ = 0;
};

void must_be_whole(std::span<const std::byte> frame) {
  if (frame.size() < sizeof(EthernetHeader)) std::abort();
  const auto type = header_at<EthernetHeader>(frame, 0).type.host();
  if (type == 0x0806) return;
  if (type != 0x0800 || frame.size() < sizeof(EthernetHeader) + sizeof(Ipv4Header)) std::abort();
  const auto& ip = header_at<Ipv4Header>(frame, sizeof(EthernetHeader));
  if (ip.header_length() > frame.size() - sizeof(EthernetHeader)) std::abort();
  if (ChecksumSum{}.add(frame.subspan(sizeof(EthernetHeader), ip.header_length())).folded() != 0xffff) std::abort();
}

void drain(Balancer& balancer) {
  for (std::size_t i = 0; i < balancer.outbox().size(); ++i)
    if (balancer.outbox()[i].egress) must_be_whole(balancer.outbox()[i].frame.bytes());
  balancer.outbox().clear();
}

ServiceKey service(std::uint8_t b) {
  return {(b & 1U) != 0 ? Protocol::udp : Protocol::tcp,
          {IpAddress::v4(0x0a090064U + (b >> 1U) % 2), Port::of((b & 4U) != 0 ? 53 : 80)},
          0};
}

ServerConfig server(std::uint8_t a, std::uint8_t b) {
  ServerConfig config;
  config.endpoint = {IpAddress::v4(0x0a09000bU + a % 3), Port::of((a & 8U) != 0 ? 8080 : 80)};
  config.method = static_cast<Method>((a >> 4U) % 3);
  config.weight = b % 4;
  config.upper_threshold = b >> 6U;
  if ((b & 32U) != 0)
    config.check = HealthCheck{(b & 16U) != 0 ? HealthCheck::Kind::http : HealthCheck::Kind::tcp, {}, "/", 200ms, 1, 1};
  return config;
}

Change change(Script& script) {
  const std::uint8_t what = script.byte();
  const std::uint8_t a = script.byte();
  const std::uint8_t b = script.byte();
  switch (what % 8) {
    case 0: {
      const auto names = scheduler_names();
      return AddService{{service(a), std::string{names[b % names.size()]}, {true, (b & 1U) != 0, false}, (b & 4U) != 0 ? 10s : 0s, 0,
                         Be32{0xffffff00U}, (b & 8U) != 0, {}, {}}};
    }
    case 1: return AddServer{service(a), server(b, script.byte())};
    case 2: return EditServer{service(a), server(b, script.byte())};
    case 3: return DeleteServer{service(a), server(b, 0).endpoint};
    case 4: return DeleteService{service(a)};
    case 5: return SetTunable{std::string{kTunables[a % std::size(kTunables)].name}, b % 4};
    case 6: return SetNeighbour{DeviceId{0}, IpAddress::v4(0x0a090001U + a % 16), MacAddress{{2, 0, 0, 0, 0, b}}, false};
    default:
      return SetDevice{DeviceId{0}, "eth0", MacAddress{{2, 0, 0, 0, 0, 2}}, 68U + 8U * b, (a & 1U) != 0 || b > 9, Stack::own};
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Script script(data, size);
  Balancer balancer({(script.byte() & 1U) != 0 ? Policy::kernel : Policy::improved, 1, 64, true});
  Instant now{1000s};
  (void)balancer.apply(SetDevice{DeviceId{0}, "eth0", MacAddress{{2, 0, 0, 0, 0, 2}}, 1500, true, Stack::own}, now);
  (void)balancer.apply(SetAddresses{DeviceId{0}, {*Prefix::parse("10.9.0.2/24")}}, now);
  (void)balancer.apply(SetForwarding{true}, now);
  std::vector<std::byte> room(kHeadroom + kMaxFrame);
  while (!script.over()) {
    switch (script.byte() % 4) {
      case 0: (void)balancer.apply(change(script), now); break;
      case 1:
        now += std::chrono::milliseconds(script.byte() * 37);
        balancer.expire(now);
        break;
      default: {
        Frame frame;
        frame.storage = room;
        frame.start = kHeadroom;
        frame.ingress = DeviceId{0};
        const std::uint8_t offload = script.byte();
        const auto bytes = script.take(script.byte() + std::size_t{64} * (offload & 15U));
        frame.resize(bytes.size());
        if (!bytes.empty()) std::memcpy(frame.bytes().data(), bytes.data(), bytes.size());
        if (frame.length >= 34) {  // most scripts should get past the header's checksum
          auto& ip = header_at<Ipv4Header>(frame.bytes(), 14);
          const std::size_t header = std::min<std::size_t>(std::max<std::size_t>(ip.header_length(), 20), frame.length - 14);
          if ((offload & 16U) != 0) {
            header_at<EthernetHeader>(frame.bytes(), 0).target = MacAddress{{2, 0, 0, 0, 0, 2}};
            ip.checksum = Be16{0};
            ip.checksum = ChecksumSum{}.add(frame.bytes().subspan(14, header)).field();
          }
          if ((offload & 32U) != 0) {
            frame.offload.segments = static_cast<Offload::Segments>(1 + offload % 3);
            frame.offload.segment_size = script.byte();
          }
          if ((offload & 64U) != 0) {
            frame.offload.checksum = Offload::Checksum::partial;
            frame.offload.checksum_start = static_cast<std::uint16_t>(14 + header);
            frame.offload.checksum_offset = (offload & 1U) != 0 ? 16 : 6;
          }
        }
        if (balancer.process(frame, now).action == Action::transmit) must_be_whole(frame.bytes());
      }
    }
    drain(balancer);
  }
  balancer.expire(now + 24h);
  drain(balancer);
  return 0;
}
