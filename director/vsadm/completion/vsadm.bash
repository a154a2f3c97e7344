# Completion of vsadm, director and realserver for bash 4 and later; needs nothing else.
#   source vsadm.bash          or put it where bash-completion looks: /usr/share/bash-completion/completions/vsadm
# vsadm knows best how its line may go on, and asks the director for services and servers (`vsadm complete`). The other two are asked
# for --help.

# Sets line_words and typed. bash cuts words at : and =, which are part of ours; so the line is split anew, at blanks.
_director_split_line() {
  local line=${COMP_LINE:0:COMP_POINT}
  read -ra line_words <<<"$line"
  [[ $line == *[[:blank:]] ]] && line_words+=("")
  # In front of the command there may be variables.
  while ((${#line_words[@]} > 1)) && [[ ${line_words[0]} != "${COMP_WORDS[0]}" ]]; do line_words=("${line_words[@]:1}"); done
  typed=${line_words[-1]}
}

# Of the candidates bash inserts only what is behind the last cut.
_director_cut_replies() {
  local head="" cut part
  for cut in : =; do
    if [[ $COMP_WORDBREAKS == *"$cut"* && $typed == *"$cut"* ]]; then
      part=${typed%"${typed##*"$cut"}"}
      ((${#part} > ${#head})) && head=$part
    fi
  done
  COMPREPLY=("${COMPREPLY[@]#"$head"}")
  [[ ${COMPREPLY[0]-} == *= ]] && compopt -o nospace 2>/dev/null
  return 0
}

_vsadm() {
  local line_words typed
  _director_split_line
  mapfile -t COMPREPLY < <("${COMP_WORDS[0]/#\~/$HOME}" complete "${line_words[@]:1}" 2>/dev/null)
  if [[ ${COMPREPLY[0]-} == :file ]]; then
    COMPREPLY=()
    compopt -o default 2>/dev/null
    return 0
  fi
  _director_cut_replies
}

# Options, and behind one its values: --help shows them as "--guard on|off" or "--rules FILE". Arguments: words that may come first,
# each with a --help of its own.
_director_from_help() {
  local line_words typed options option value prefix="" choices=() task=()
  _director_split_line
  [[ ${#line_words[@]} -gt 2 && " $* " == *" ${line_words[1]} "* ]] && task=("${line_words[1]}")
  options=$("${COMP_WORDS[0]/#\~/$HOME}" "${task[@]}" --help 2>/dev/null |
    sed -n -e 's/^  \(--[a-z-]*\) \([^ ]\{1,\}\).*/\1 \2/p;t' -e 's/^  \(--[a-z-]*\).*/\1/p')
  if [[ $typed == --*=* ]]; then
    option=${typed%%=*} prefix=${typed%%=*}=
  else
    option=${line_words[-2]}
  fi
  [[ $option == --* ]] && value=$(sed -n "s/^$option //p" <<<"$options")
  case ${value-} in
    '')
      ((${#line_words[@]} == 2)) && choices=("$@")
      choices+=($(sed 's/ .*//' <<<"$options"))
      ;;
    *'|'*) choices=(${value//|/ }) ;;
    SPEC) choices=(/sys/class/net/*) choices=("${choices[@]/#*\//packet:}" tap:) ;;
    IF) choices=(/sys/class/net/*) choices=("${choices[@]##*/}") ;;
    FILE | PATH | DIR)
      COMPREPLY=()
      compopt -o default 2>/dev/null
      return 0
      ;;
  esac
  mapfile -t COMPREPLY < <(compgen -W "${choices[*]/#/$prefix}" -- "$typed")
  _director_cut_replies
}
_director() { _director_from_help explain replay; }
_realserver() { _director_from_help up down check; }

complete -F _vsadm vsadm
complete -F _director director
complete -F _realserver realserver
