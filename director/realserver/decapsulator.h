// The decapsulator: what stands in for the kernel's ipip module on a real server of VS/TUN.
//
// Tunnelled packets are read where the kernel's IP layer takes them (packet sockets bound to ETH_P_IP and
// ETH_P_IPV6: behind GRO, bridges, bonds and nft's netdev ingress hook, before its prerouting hooks), reassembled by the kernel
// if they came in IPv4 fragments, opened by decapsulate(), and handed back by an Injector. Sockets that want
// nothing, raw ones or on a UDP port, tell the kernel that somebody serves the tunnels, so that it doesn't
// answer "protocol unreachable" or "port unreachable". Segments of one connection go back joined (coalesce.h). One
// thread, one epoll set, batches both ways. Where the kernel can, a program of ours opens plain packets before they come here
// (kernel_opener.h).
#pragma once

#include <linux/filter.h>
#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "director/io/unique_fd.h"
#include "director/io/vnet_header.h"
#include "director/realserver/control_socket.h"
#include "director/realserver/decapsulate.h"
#include "director/realserver/ingress_rules.h"
#include "director/realserver/injector.h"
#include "director/realserver/kernel_opener.h"
#include "director/realserver/rtnetlink.h"

namespace director::realserver {

/// What a decapsulator works for.
struct Served {
  std::vector<IpAddress> vips;
  std::vector<TunnelEnd> ends;  ///< each once, sorted
};

class Decapsulator {
 public:
  /// Ready to run when this returns: the interface is up, packets are being queued. `input`: the only
  /// interface to read from, all of them if none is named. Throws Failure.
  Decapsulator(ControlSocket control, const std::optional<std::string>& input,
               const Served& served);

  /// Works until SIGTERM, SIGINT or `stop`.
  void run();

  [[nodiscard]] const Injector& injector() const { return *injector_; }
  /// "count delivered 17" and so on, for every fate that occurred: a line each.
  [[nodiscard]] std::string counters() const;

 private:
  static constexpr std::size_t kBatch = 64;
  static constexpr std::size_t kControlSpace = 128;

  [[nodiscard]] UniqueFd open_packet_socket(std::uint16_t type, LinkId input);
  void serve(const Served& served);
  void filter_packets();
  void silence_kernel();
  void follow_addresses();
  void read_addresses();
  void open_in_kernel();
  void tell_opener();
  void receive_batches(const UniqueFd& packets);
  bool receive_batch(const UniqueFd& packets);
  Fate open_packet(std::size_t slot, const mmsghdr& received);
  void answer_requests();
  [[nodiscard]] std::string why_not_in_kernel() const;
  [[nodiscard]] std::string status() const;
  [[nodiscard]] std::uint64_t& count(Fate fate) { return counts_[static_cast<std::size_t>(fate)]; }

  RtNetlink kernel_;
  ControlSocket control_;
  std::string input_;
  LinkId input_link_ = 0;  // 0: all
  Admission admission_;
  std::unique_ptr<Injector> injector_;
  IngressRules ingress_rules_;
  std::unique_ptr<KernelOpener> opener_;  // none: the kernel can't
  std::string opener_lacks_;              // why
  UniqueFd packets4_;
  UniqueFd packets6_;
  UniqueFd address_events_;
  UniqueFd signals_;
  std::vector<UniqueFd> silencers_;
  bool running_ = true;

  std::array<std::uint64_t, kFates.size()> counts_{};
  std::vector<std::size_t> refused_;  // of the batch in hand
  std::vector<std::byte> storage_;
  std::array<Frame, kBatch> frames_;
  std::array<VnetHeader, kBatch> headers_{};
  std::array<std::array<iovec, 2>, kBatch> parts_{};
  std::array<mmsghdr, kBatch> messages_{};
  struct alignas(cmsghdr) Control {
    std::array<char, kControlSpace> bytes;
  };
  std::array<Control, kBatch> control_space_{};
};

}  // namespace director::realserver
