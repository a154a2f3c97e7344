// in_a_copy: what a function would say, without what it does: it runs in a copy of this process (fork), and only its text comes back.
//
// For questions whose honest answer changes what is asked about: an explained packet moves the scheduler, opens a connection, counts.
// The caller waits for the copy; making it takes as long as copying the page tables, a millisecond or two for each GB in use. The
// copy touches no descriptor but its pipe. REQUIRES: one thread.
#pragma once

#include <functional>
#include <string>

#include "director/base/result.h"

namespace director {

Result<std::string> in_a_copy(const std::function<std::string()>& say);

}  // namespace director
