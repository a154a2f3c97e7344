// fetch(): asks for memory that will be needed soon, and doesn't wait for it.
#pragma once

namespace director {

/// The cache line at `p` comes nearer while something else is done; an address nobody may read is no error.
/// The empty assembly is for GCC, which takes a function that does nothing but prefetch for one without effect, and drops its calls.
inline void fetch(const void* p) {
  __builtin_prefetch(p);
  asm volatile("" : : "r"(p));
}

}  // namespace director
