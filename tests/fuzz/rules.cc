// Text to the rules reader: it says rules or where the text is wrong, a line and column inside it.
#include <cstdlib>
#include <string_view>

#include "director/rules.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace director;
  const std::string text(data, data + size);
  const auto rules = parse_rules(text);
  if (!rules && (rules.error().line == 0 || rules.error().column == 0 || rules.error().message.empty())) std::abort();
  return 0;
}
