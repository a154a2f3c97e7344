# Completion of testbed/lab for bash 4 and later.
#   source testbed/completion/lab.bash
# The lab knows best how its line may go on (`testbed/lab complete`), as vsadm does: the shell's half is the same.
source "${BASH_SOURCE[0]%/*}/../../director/vsadm/completion/vsadm.bash"
complete -F _vsadm lab
