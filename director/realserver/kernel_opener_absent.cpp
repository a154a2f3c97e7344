// In place of kernel_opener.cpp where realserver is built without gcc-bpf or libbpf.
#include "director/realserver/kernel_opener.h"

namespace director::realserver {

Result<std::unique_ptr<KernelOpener>> KernelOpener::open(const Link& /*out*/) {
  return fail("this realserver was built without gcc-bpf and libbpf-dev");
}

}  // namespace director::realserver
