// The user's half: loads kernel_path.bpf.c, and keeps its map as the core says. Source: bpf(2).
#include "director/control/kernel_path.h"

#include <bpf/bpf.h>

#include <cerrno>
#include <cstring>
#include <unordered_map>

#include "director/control/kernel_path_map.h"
#include "director/io/bpf_object.h"
#include "director/log.h"

namespace director {
namespace {

constexpr std::uint8_t kProgram[] = {
#include "kernel_path.bpf.inc"  // kernel_path.bpf.c, compiled, as numbers
};

constexpr Duration kCollectEvery = std::chrono::seconds(1);
constexpr int kIdleRounds = 5;  // collections without a packet, after which a flow may walk again

path_key key_of(const FlowKey& flow) {
  path_key key{};
  const auto source = flow.source.address.bytes();
  const auto target = flow.target.address.bytes();
  std::copy(source.begin(), source.end(), key.source);
  std::copy(target.begin(), target.end(), key.target);
  key.source_port = flow.source.port.wire.raw();
  key.target_port = flow.target.port.wire.raw();
  key.protocol = static_cast<std::uint8_t>(flow.protocol);
  return key;
}

struct FlowHash {
  std::size_t operator()(const FlowKey& flow) const {
    const path_key key = key_of(flow);
    return std::hash<std::string_view>{}({reinterpret_cast<const char*>(&key), sizeof key});
  }
};

class BpfPath final : public KernelPath {
 public:
  explicit BpfPath(BpfObject object)
      : object_(std::move(object)),
        map_(object_.map("paths")),
        filter_(object_.program("keep_for_director")),
        forward_(object_.program("forward")) {}

  [[nodiscard]] int socket_filter() const override { return filter_; }
  void link_changed(DeviceId device, unsigned index, Entry entry) override;
  void follow(const ShortcutNews& news, const std::function<void(const Carried&)>& tell) override;
  void collect(Instant now, const std::function<void(const Carried&)>& tell) override;
  [[nodiscard]] Instant next_deadline() const override { return open_.empty() ? kNever : next_; }

 private:
  struct Open {
    std::uint64_t packets = 0;  // told so far
    std::uint64_t bytes = 0;
    int idle = 0;
  };
  struct Link {
    unsigned index = 0;
    Entry entry = Entry::interface;
    UniqueFd attached;
  };

  void open(const Shortcut& shortcut);
  void close(const FlowKey& flow, const std::function<void(const Carried&)>& tell);
  static void account(const FlowKey& flow, Open& so_far, const path& now, const std::function<void(const Carried&)>& tell);

  BpfObject object_;
  int map_;
  int filter_;
  int forward_;
  std::map<DeviceId, Link> links_;
  std::unordered_map<FlowKey, Open, FlowHash> open_;
  Instant next_ = kNever;
  log::Limiter errors_;
};

void BpfPath::link_changed(DeviceId device, unsigned index, Entry entry) {
  Link& link = links_[device];
  if (link.index == index) return;
  link.attached = UniqueFd{};
  link.index = index;
  link.entry = entry;
  if (index == 0) return;
  link.attached = attach_tcx(forward_, index, entry == Entry::tap ? TcxSide::egress : TcxSide::ingress);
  if (!link.attached)
    log::info("big flows walk through the director: the kernel takes no program at the interface (tcx, Linux 6.6)",
              {{"index", index}, {"error", std::strerror(errno)}});
}

void BpfPath::open(const Shortcut& shortcut) {
  const Link& in = links_[shortcut.ingress];
  const Link& out = links_[shortcut.egress];
  if (!in.attached || out.index == 0) return;
  path value{};
  value.egress = out.index;
  value.is_tap = out.entry == Entry::tap;
  value.mtu = shortcut.mtu;
  value.protocol = static_cast<std::uint8_t>(shortcut.flow.protocol);
  switch (shortcut.rewrite) {
    case Shortcut::Rewrite::nothing: value.rewrite = PATH_REWRITES_NOTHING; break;
    case Shortcut::Rewrite::target: value.rewrite = PATH_REWRITES_TARGET; break;
    case Shortcut::Rewrite::source: value.rewrite = PATH_REWRITES_SOURCE; break;
  }
  const auto address = shortcut.replacement.address.bytes();
  std::copy(address.begin(), address.end(), value.address);
  value.port = shortcut.replacement.port.wire.raw();
  std::copy(shortcut.to.bytes.begin(), shortcut.to.bytes.end(), value.ethernet);
  std::copy(shortcut.from.bytes.begin(), shortcut.from.bytes.end(), value.ethernet + 6);
  static_assert(sizeof value.here == sizeof shortcut.here.bytes);
  std::memcpy(value.here, shortcut.here.bytes.data(), sizeof value.here);
  if (const auto& tunnel = shortcut.tunnel) {
    const auto local = tunnel->local.bytes();
    const auto remote = tunnel->remote.bytes();
    value.outer = tunnel->remote.is_v4() ? 4 : 6;
    std::copy(local.begin(), local.end(), value.outer_source);
    std::copy(remote.begin(), remote.end(), value.outer_target);
  }
  const path_key key = key_of(shortcut.flow);
  if (bpf_map_update_elem(map_, &key, &value, BPF_ANY) != 0) {
    if (errno != E2BIG && errors_.allow())  // E2BIG: full, this flow walks
      log::warning("a flow can't be handed to the kernel", {{"error", std::strerror(errno)}});
    return;
  }
  open_[shortcut.flow] = {};
}

void BpfPath::close(const FlowKey& flow, const std::function<void(const Carried&)>& tell) {
  const auto found = open_.find(flow);
  if (found == open_.end()) return;
  const path_key key = key_of(flow);
  path last{};
  if (bpf_map_lookup_elem(map_, &key, &last) == 0) {
    bpf_map_delete_elem(map_, &key);
    account(flow, found->second, last, tell);
  }
  open_.erase(found);
}

void BpfPath::account(const FlowKey& flow, Open& so_far, const path& now, const std::function<void(const Carried&)>& tell) {
  if (now.packets == so_far.packets) {
    ++so_far.idle;
    return;
  }
  tell({flow, now.packets - so_far.packets, now.bytes - so_far.bytes,
        Instant{Duration{static_cast<Duration::rep>(now.last)}}});
  so_far = {now.packets, now.bytes, 0};
}

void BpfPath::follow(const ShortcutNews& news, const std::function<void(const Carried&)>& tell) {
  if (news.all_closed)
    while (!open_.empty()) close(FlowKey{open_.begin()->first}, tell);
  for (const FlowKey& flow : news.closed) close(flow, tell);
  for (const Shortcut& shortcut : news.opened) open(shortcut);
}

void BpfPath::collect(Instant now, const std::function<void(const Carried&)>& tell) {
  std::vector<FlowKey> idle;
  for (auto& [flow, so_far] : open_) {
    const path_key key = key_of(flow);
    path current{};
    if (bpf_map_lookup_elem(map_, &key, &current) != 0) continue;
    account(flow, so_far, current, tell);
    if (so_far.idle >= kIdleRounds) idle.push_back(flow);
  }
  for (const FlowKey& flow : idle) close(flow, tell);
  next_ = now + kCollectEvery;
}

}  // namespace

Result<std::unique_ptr<KernelPath>> KernelPath::open() {
  auto object = BpfObject::load(kProgram);
  if (!object) return Failure{object.error()};
  return std::unique_ptr<KernelPath>{std::make_unique<BpfPath>(std::move(*object))};
}

}  // namespace director
