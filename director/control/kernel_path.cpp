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

constexpr Duration kRound = std::chrono::seconds(1);  // in which every flow is asked once
constexpr Duration kIdle = std::chrono::seconds(5);   // without a packet, after which a flow is let go
constexpr std::uint32_t kSlice = 256;                 // flows asked at once: some 0.1 ms

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

FlowKey flow_of(const path_key& key) {
  FlowKey flow;
  flow.source.address = IpAddress::v6(std::to_array(key.source));
  flow.target.address = IpAddress::v6(std::to_array(key.target));
  flow.source.port.wire = Be16::from_raw(key.source_port);
  flow.target.port.wire = Be16::from_raw(key.target_port);
  flow.protocol = static_cast<Protocol>(key.protocol);
  return flow;
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
  void follow(const ShortcutNews& news, const Tell& tell) override;
  void collect(Instant now, const Tell& tell) override;
  void collect_all(Instant now, const Tell& tell) override;
  [[nodiscard]] Instant next_deadline() const override { return open_.empty() ? kNever : next_; }

 private:
  struct Open {
    std::uint64_t packets = 0;  // told so far
    std::uint64_t bytes = 0;
    Instant heard{};  // when it last carried something; nothing yet: when it was first asked
  };
  struct Slice {
    std::array<path_key, kSlice> keys;
    std::array<path, kSlice> paths;
    std::uint32_t count = kSlice;
  };
  struct Link {
    unsigned index = 0;
    Entry entry = Entry::interface;
    UniqueFd attached;
  };

  void open(const Shortcut& shortcut);
  void close(const FlowKey& flow, const Tell& tell);
  void close_all(const Tell& tell);
  /// Asks the next flows of the round.
  void ask_slice(Instant now, const Tell& tell);
  template <auto kRead>
  Slice next_slice();
  /// Tells what a flow carried since it was asked last.
  static void account(const FlowKey& flow, Open& so_far, const path& now, const Tell& tell);

  BpfObject object_;
  int map_;
  int filter_;
  int forward_;
  std::map<DeviceId, Link> links_;
  std::unordered_map<FlowKey, Open, FlowHash> open_;
  std::uint32_t cursor_ = 0;  // the kernel's word for where the round goes on
  bool begins_ = true;        // a round, with the next slice: there is no cursor
  Instant next_{};            // as soon as something is open
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

void BpfPath::account(const FlowKey& flow, Open& so_far, const path& now, const Tell& tell) {
  if (now.packets == so_far.packets) return;
  const Instant heard{Duration{static_cast<Duration::rep>(now.last)}};
  tell({flow, now.packets - so_far.packets, now.bytes - so_far.bytes, heard});
  so_far = {now.packets, now.bytes, heard};
}

void BpfPath::close(const FlowKey& flow, const Tell& tell) {
  const auto found = open_.find(flow);
  if (found == open_.end()) return;
  const path_key key = key_of(flow);
  path last{};
  if (bpf_map_lookup_and_delete_elem(map_, &key, &last) == 0) account(flow, found->second, last, tell);
  open_.erase(found);
}

/// `kRead`: how libbpf reads many entries at once, and takes them out or doesn't.
template <auto kRead>
BpfPath::Slice BpfPath::next_slice() {
  Slice slice;
  const bool more =
      kRead(map_, begins_ ? nullptr : &cursor_, &cursor_, slice.keys.data(), slice.paths.data(), &slice.count, nullptr) == 0;
  if (!more && errno != ENOENT) slice.count = 0;
  begins_ = !more;  // ENOENT: those were the last
  return slice;
}

void BpfPath::close_all(const Tell& tell) {
  if (open_.empty()) return;
  begins_ = true;
  do {
    const Slice slice = next_slice<bpf_map_lookup_and_delete_batch>();
    for (std::uint32_t i = 0; i < slice.count; ++i) {
      const FlowKey flow = flow_of(slice.keys[i]);
      account(flow, open_[flow], slice.paths[i], tell);
      open_.erase(flow);
    }
  } while (!begins_);
  while (!open_.empty()) close(FlowKey{open_.begin()->first}, tell);  // what the kernel didn't give at once
}

void BpfPath::follow(const ShortcutNews& news, const Tell& tell) {
  if (news.all_closed) close_all(tell);
  for (const FlowKey& flow : news.closed) close(flow, tell);
  for (const Shortcut& shortcut : news.opened) open(shortcut);
}

void BpfPath::ask_slice(Instant now, const Tell& tell) {
  const Slice slice = next_slice<bpf_map_lookup_batch>();
  for (std::uint32_t i = 0; i < slice.count; ++i) {
    const FlowKey flow = flow_of(slice.keys[i]);
    const auto found = open_.find(flow);
    if (found == open_.end()) continue;
    Open& so_far = found->second;
    account(flow, so_far, slice.paths[i], tell);
    if (so_far.heard == Instant{}) so_far.heard = now;
    if (now - so_far.heard < kIdle) continue;
    close(flow, tell);
    tell({flow, 0, 0, {}, true});
  }
}

void BpfPath::collect(Instant now, const Tell& tell) {
  ask_slice(now, tell);
  next_ = now + kRound / (open_.size() / kSlice + 1);
}

void BpfPath::collect_all(Instant now, const Tell& tell) {
  if (open_.empty()) return;
  begins_ = true;
  do ask_slice(now, tell);
  while (!begins_);
}

}  // namespace

Result<std::unique_ptr<KernelPath>> KernelPath::open() {
  auto object = BpfObject::load(kProgram);
  if (!object) return Failure{object.error()};
  return std::unique_ptr<KernelPath>{std::make_unique<BpfPath>(std::move(*object))};
}

}  // namespace director
