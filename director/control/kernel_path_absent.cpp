// In place of kernel_path.cpp where the director is built without gcc-bpf or libbpf.
#include "director/control/kernel_path.h"

namespace director {

Result<std::unique_ptr<KernelPath>> KernelPath::open() {
  return fail("this director was built without gcc-bpf and libbpf-dev, which shortcuts through the kernel need");
}

}  // namespace director
