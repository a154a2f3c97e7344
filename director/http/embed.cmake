# Makes a C++ source of the status page:  cmake -D PAGE=status.html -D OUT=status_page.cpp -P embed.cmake
# The policy names its one style and its one script by hash, so that a browser runs these and nothing that got into the page.

# base64 of a text in hexadecimal, into `out`.
function(base64_of hex out)
  set(alphabet "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
  set(text "")
  string(LENGTH "${hex}" length)
  foreach(at RANGE 0 ${length} 6)  # three bytes are four letters
    string(SUBSTRING "${hex}" ${at} 6 some)
    string(LENGTH "${some}" digits)
    if(digits EQUAL 0)
      break()
    endif()
    string(SUBSTRING "${some}0000" 0 6 padded)
    math(EXPR bits "0x${padded}")
    math(EXPR letters "${digits} * 4 / 6 + 1")
    if(digits EQUAL 6)
      set(letters 4)
    endif()
    foreach(shift 18 12 6 0)
      if(letters GREATER 0)
        math(EXPR index "(${bits} >> ${shift}) & 63")
        string(SUBSTRING "${alphabet}" ${index} 1 letter)
        string(APPEND text "${letter}")
        math(EXPR letters "${letters} - 1")
      else()
        string(APPEND text "=")
      endif()
    endforeach()
  endforeach()
  set(${out} "${text}" PARENT_SCOPE)
endfunction()

# The hash of what stands between <tag> and </tag>.
function(hash_of page tag out)
  string(FIND "${page}" "<${tag}>" begin)
  string(FIND "${page}" "</${tag}>" end)
  if(begin EQUAL -1 OR end EQUAL -1)
    message(FATAL_ERROR "the page has no <${tag}>")
  endif()
  string(LENGTH "<${tag}>" skip)
  math(EXPR begin "${begin} + ${skip}")
  math(EXPR length "${end} - ${begin}")
  string(SUBSTRING "${page}" ${begin} ${length} content)
  string(SHA256 hex "${content}")
  base64_of("${hex}" base64)
  set(${out} "sha256-${base64}" PARENT_SCOPE)
endfunction()

file(READ "${PAGE}" page)
hash_of("${page}" style style)
hash_of("${page}" script script)
# A string literal has at most 64 KiB by the standard's least; adjacent ones are one.
file(WRITE "${OUT}" "// Made by director/http/embed.cmake from status.html.
#include \"director/http/status_page.h\"

namespace director {

const std::string_view kStatusPage = R\"page(${page})page\";
const std::string_view kStatusPagePolicy =
    \"default-src 'none'; script-src '${script}'; style-src '${style}'; connect-src 'self'; img-src data:; \"
    \"base-uri 'none'; form-action 'none'; frame-ancestors 'none'\";

}  // namespace director
")
