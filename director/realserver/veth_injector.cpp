// One end of a veth pair is the interface; frames are sent into the other end through a packet socket, many
// at a time.
#include <fcntl.h>
#include <linux/if_packet.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>
#include <cstdlib>
#include <string>
#include <system_error>

#include "director/io/unique_fd.h"
#include "director/io/vnet_header.h"
#include "director/net/headers.h"
#include "director/realserver/injector.h"

namespace director::realserver {
namespace {

constexpr std::size_t kBatch = 64;
constexpr const char* kFarEnd = "vs-far0";

class VethInjector final : public Injector {
 public:
  VethInjector(UniqueFd socket, const Link& near, const char* where) : socket_(std::move(socket)) {
    link_ = near.id;
    name_ = near.name;
    description_ = where;
    mac_ = near.mac;
  }

  void inject(std::span<Frame* const> packets, std::vector<std::size_t>& refused) override {
    for (std::size_t first = 0; first < packets.size(); first += kBatch) {
      const std::size_t n = std::min(packets.size() - first, kBatch);
      for (std::size_t i = 0; i < n; ++i) describe(i, *packets[first + i]);
      std::size_t done = 0;
      while (done < n) {
        const int sent =
            ::sendmmsg(socket_.get(), messages_.data() + done, static_cast<unsigned>(n - done), 0);
        if (sent > 0) {
          done += static_cast<std::size_t>(sent);
        } else {  // the first one left was refused: go on behind it
          refused.push_back(first + done);
          ++done;
        }
      }
    }
  }

 private:
  void describe(std::size_t i, Frame& packet) {
    const auto version = std::to_integer<unsigned>(packet.bytes().front()) >> 4U;
    const auto type = version == 4 ? EtherType::ipv4 : EtherType::ipv6;
    [[maybe_unused]] const std::byte* const room = packet.push(sizeof(EthernetHeader));
    assert(room != nullptr);  // the tunnel headers that were taken off are longer than a link header
    header_at<EthernetHeader>(packet.bytes(), 0) = {mac_, mac_, Be16{static_cast<std::uint16_t>(type)}};
    headers_[i] = to_vnet_header(packet.offload);
    parts_[i] = {iovec{&headers_[i], sizeof headers_[i]},
                 iovec{packet.bytes().data(), packet.bytes().size()}};
    messages_[i] = {};
    messages_[i].msg_hdr.msg_iov = parts_[i].data();
    messages_[i].msg_hdr.msg_iovlen = parts_[i].size();
  }

  UniqueFd socket_;  // holds the far end's namespace: the last reference to it
  MacAddress mac_;
  std::array<VnetHeader, kBatch> headers_{};
  std::array<std::array<iovec, 2>, kBatch> parts_{};
  std::array<mmsghdr, kBatch> messages_{};
};

/// A packet socket that sends into an interface of the namespace it was made in.
UniqueFd open_sender(LinkId link) {
  UniqueFd socket{::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0)};
  const int on = 1;
  sockaddr_ll to{};
  to.sll_family = AF_PACKET;
  to.sll_ifindex = link;
  if (!socket || ::setsockopt(socket.get(), SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on) != 0 ||
      ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) {
    throw std::system_error(errno, std::system_category(), "packet socket");
  }
  return socket;
}

/// A network namespace of this process's own, entered while the object lives; not entered if that isn't
/// allowed.
class OwnNamespace {
 public:
  OwnNamespace() : home_(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC)) {
    entered_ = home_ && ::unshare(CLONE_NEWNET) == 0;
    here_ = UniqueFd{::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC)};
  }
  OwnNamespace(const OwnNamespace&) = delete;
  OwnNamespace& operator=(const OwnNamespace&) = delete;
  /// Whoever could leave a namespace may come back; if not, going on in the wrong one would be worse than
  /// stopping.
  ~OwnNamespace() {
    if (entered_ && ::setns(home_.get(), CLONE_NEWNET) != 0) std::abort();
  }

  [[nodiscard]] bool entered() const { return entered_; }
  [[nodiscard]] int fd() const { return here_.get(); }

 private:
  UniqueFd home_;
  UniqueFd here_;
  bool entered_ = false;
};

std::string free_name(RtNetlink& kernel) {
  for (int i = 0;; ++i) {
    std::string name = "vs-tun" + std::to_string(i);
    if (!kernel.link(name)) return name;
  }
}

}  // namespace

void remove_left_pair(RtNetlink& kernel) {
  if (const auto left = kernel.link(kFarEnd); left && left->kind == "veth") kernel.remove_link(left->id);
}

std::unique_ptr<Injector> make_veth_injector(RtNetlink& kernel) {
  remove_left_pair(kernel);
  const std::string name = free_name(kernel);
  UniqueFd sender;
  const char* where = "veth";
  try {
    const OwnNamespace own;  // `kernel` keeps speaking to the namespace its socket was made in
    kernel.add_veth(name, kFarEnd, own.fd());
    RtNetlink there;
    const auto far = there.link(kFarEnd);
    if (!far) return nullptr;
    there.set_silent(far->id);
    there.set_up(far->id, true);
    sender = open_sender(far->id);
    if (!own.entered())
      where = "veth, both ends in this namespace: a kill -9 leaves them until the next start";
  } catch (const std::system_error& e) {
    if (e.code().value() == EPERM || e.code().value() == EACCES) return nullptr;
    throw;
  }
  const auto near = kernel.link(name);
  return near ? std::make_unique<VethInjector>(std::move(sender), *near, where) : nullptr;
}

}  // namespace director::realserver
