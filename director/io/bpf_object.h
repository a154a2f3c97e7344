// BpfObject: programs for the kernel and their maps, compiled by the build (CMakeLists.txt, add_bpf_part) and loaded by libbpf; how
// one gets to an interface. All of it belongs to the process: the kernel removes it with it, kill -9 included. Source: bpf(2), libbpf.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "director/base/result.h"
#include "director/io/unique_fd.h"

struct bpf_object;

namespace director {

class BpfObject {
 public:
  /// `file`: an ELF object. The Failure says in a sentence what is lacking.
  [[nodiscard]] static Result<BpfObject> load(std::span<const std::uint8_t> file);

  // Descriptors that belong to the object; -1: there is none of that name.
  [[nodiscard]] int program(const char* name) const;
  [[nodiscard]] int map(const char* name) const;

 private:
  struct Close {
    void operator()(bpf_object* object) const;
  };
  std::unique_ptr<bpf_object, Close> object_;
};

/// Which frames of an interface a program gets (tcx, Linux 6.6).
enum class TcxSide : std::uint8_t { ingress, egress };

/// The program works there while the descriptor is open; none: errno says why.
[[nodiscard]] UniqueFd attach_tcx(int program, unsigned interface, TcxSide side);

}  // namespace director
