// A TUN interface that is not persistent: it exists while this process holds its descriptor.
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "director/io/unique_fd.h"
#include "director/io/vnet_header.h"
#include "director/realserver/injector.h"

namespace director::realserver {
namespace {

class TunInjector final : public Injector {
 public:
  TunInjector(UniqueFd fd, std::string name, LinkId link) : fd_(std::move(fd)) {
    link_ = link;
    name_ = std::move(name);
    description_ = "TUN";
  }

  void inject(std::span<Frame* const> packets, std::vector<std::size_t>& refused) override {
    for (std::size_t i = 0; i < packets.size(); ++i) {
      VnetHeader header = to_vnet_header(packets[i]->offload);
      const auto bytes = packets[i]->bytes();
      const std::array parts{iovec{&header, sizeof header}, iovec{bytes.data(), bytes.size()}};
      if (::writev(fd_.get(), parts.data(), parts.size()) < 0) refused.push_back(i);
    }
  }

 private:
  UniqueFd fd_;
};

/// An interface of that name, or of the next free number when another one has it. No name: not allowed.
std::string attach(int fd, const char* name) {
  ifreq request{};
  request.ifr_flags = IFF_TUN | IFF_VNET_HDR | IFF_NO_PI;
  std::strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  if (::ioctl(fd, TUNSETIFF, &request) != 0) return {};
  return request.ifr_name;
}

}  // namespace

std::unique_ptr<Injector> make_tun_injector(RtNetlink& kernel) {
  UniqueFd fd{::open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK)};
  if (!fd) return nullptr;
  std::string name;
  if (!kernel.link(kTunnelInterface)) name = attach(fd.get(), kTunnelInterface);
  if (name.empty()) name = attach(fd.get(), "vs-tun%d");
  const auto link = name.empty() ? std::nullopt : kernel.link(name);
  if (!link) return nullptr;
  return std::make_unique<TunInjector>(std::move(fd), name, link->id);
}

}  // namespace director::realserver
