// See the header.
#include "director/io/bpf_object.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fmt/format.h>

#include <cerrno>
#include <cstring>

namespace director {

void BpfObject::Close::operator()(bpf_object* object) const { bpf_object__close(object); }

Result<BpfObject> BpfObject::load(std::span<const std::uint8_t> file) {
  libbpf_set_print(nullptr);
  BpfObject loaded;
  loaded.object_.reset(bpf_object__open_mem(file.data(), file.size(), nullptr));
  if (!loaded.object_) return fail(fmt::format("the program can't be read: {}", std::strerror(errno)));
  if (const int error = bpf_object__load(loaded.object_.get()); error != 0)
    return fail(error == -EPERM ? std::string{"it needs CAP_BPF (in a container: --cap-add BPF)"}
                                : fmt::format("the kernel refuses the program: {}", std::strerror(-error)));
  return loaded;
}

int BpfObject::program(const char* name) const {
  const bpf_program* found = bpf_object__find_program_by_name(object_.get(), name);
  return found == nullptr ? -1 : bpf_program__fd(found);
}

int BpfObject::map(const char* name) const {
  const int found = bpf_object__find_map_fd_by_name(object_.get(), name);
  return found < 0 ? -1 : found;
}

UniqueFd attach_tcx(int program, unsigned interface, TcxSide side) {
  // BPF_TCX_INGRESS and BPF_TCX_EGRESS: newer than Debian 12's headers.
  constexpr auto kIngress = static_cast<bpf_attach_type>(46);
  constexpr auto kEgress = static_cast<bpf_attach_type>(47);
  return UniqueFd{bpf_link_create(program, static_cast<int>(interface), side == TcxSide::egress ? kEgress : kIngress, nullptr)};
}

}  // namespace director
