// The user's half: loads kernel_opener.bpf.c, tells it what to open, and where. Source: bpf(2).
#include "director/realserver/kernel_opener.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>  // libbpf_num_possible_cpus

#include <algorithm>
#include <array>
#include <map>
#include <numeric>

#include "director/io/bpf_object.h"
#include "director/realserver/kernel_opener_map.h"

namespace director::realserver {
namespace {

constexpr std::uint8_t kProgram[] = {
#include "kernel_opener.bpf.inc"  // kernel_opener.bpf.c, compiled, as numbers
};
constexpr std::uint32_t kOnly = 0;  // index in maps of one

class BpfOpener final : public KernelOpener {
 public:
  BpfOpener(BpfObject object, const Link& out)
      : object_(std::move(object)),
        addresses_(object_.map("addresses")),
        settings_(object_.map("settings")),
        delivered_(object_.map("delivered")),
        program_(object_.program("open_tunnel")) {
    setting_.interface = static_cast<std::uint32_t>(out.id);
    setting_.has_mac = out.ethernet ? 1 : 0;
    std::copy(out.mac.bytes.begin(), out.mac.bytes.end(), setting_.mac);
  }

  void admit(const Admission& admission, const std::vector<LinkId>& links) override;
  [[nodiscard]] std::size_t links() const override { return attached_.size(); }
  [[nodiscard]] std::uint64_t delivered() const override;

 private:
  using Bytes = std::array<std::uint8_t, 16>;
  static opener_address key_of(const Bytes& bytes) {
    opener_address key{};
    std::copy(bytes.begin(), bytes.end(), key.bytes);
    return key;
  }

  BpfObject object_;
  int addresses_;
  int settings_;
  int delivered_;
  int program_;
  opener_settings setting_{};
  std::map<Bytes, std::uint8_t> known_;  // what stands in the map
  std::map<LinkId, UniqueFd> attached_;
};

/// An address that the map won't take (it is full) is no loss: its packets come to the decapsulator.
void BpfOpener::admit(const Admission& admission, const std::vector<LinkId>& links) {
  std::map<Bytes, std::uint8_t> wanted;
  for (const IpAddress& own : admission.own.addresses()) wanted[own.bytes()] |= OPENER_OWN;
  for (const IpAddress& vip : admission.vips.addresses()) wanted[vip.bytes()] |= OPENER_VIP;
  for (const auto& [bytes, what] : known_) {
    const opener_address key = key_of(bytes);
    if (!wanted.contains(bytes)) bpf_map_delete_elem(addresses_, &key);
  }
  for (const auto& [bytes, what] : wanted) {
    const opener_address key = key_of(bytes);
    bpf_map_update_elem(addresses_, &key, &what, BPF_ANY);
  }
  known_ = std::move(wanted);

  const auto opens = [&](TunnelEnd::Kind kind) {
    return std::any_of(admission.ends.begin(), admission.ends.end(), [&](const TunnelEnd& end) { return end.kind == kind; });
  };
  setting_.opens4 = opens(TunnelEnd::Kind::ipip) ? 1 : 0;
  setting_.opens6 = opens(TunnelEnd::Kind::sit) ? 1 : 0;
  bpf_map_update_elem(settings_, &kOnly, &setting_, BPF_ANY);

  const bool opens_any = setting_.opens4 != 0 || setting_.opens6 != 0;
  std::erase_if(attached_, [&](const auto& at) { return !opens_any || std::find(links.begin(), links.end(), at.first) == links.end(); });
  if (!opens_any) return;
  for (const LinkId link : links) {
    if (attached_.contains(link)) continue;
    if (UniqueFd fd = attach_tcx(program_, static_cast<unsigned>(link), TcxSide::ingress)) attached_.emplace(link, std::move(fd));
  }
}

std::uint64_t BpfOpener::delivered() const {
  std::vector<std::uint64_t> by_processor(static_cast<std::size_t>(std::max(libbpf_num_possible_cpus(), 1)));
  if (bpf_map_lookup_elem(delivered_, &kOnly, by_processor.data()) != 0) return 0;
  return std::accumulate(by_processor.begin(), by_processor.end(), std::uint64_t{0});
}

}  // namespace

Result<std::unique_ptr<KernelOpener>> KernelOpener::open(const Link& out) {
  auto object = BpfObject::load(kProgram);
  if (!object) return Failure{object.error()};
  return std::unique_ptr<KernelOpener>{std::make_unique<BpfOpener>(std::move(*object), out)};
}

}  // namespace director::realserver
