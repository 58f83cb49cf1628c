# Shared functions of the tours; to be sourced. `passed` counts checks; with TOUR_TOLD=1 each check is printed as it
# begins.
passed=0
told() { [ -z "${TOUR_TOLD:-}" ] || echo "$(date +%T) $1"; }
# is WHAT EXPECTED COMMAND...: the command prints exactly this, within a minute
is() {
  local what=$1 expected=$2 got=
  told "$what"
  shift 2
  for _ in $(seq 600); do
    got=$("$@" 2>&1) || true
    if [ "$got" = "$expected" ]; then
      passed=$((passed + 1))
      return
    fi
    sleep 0.1
  done
  echo "FAILED: $what: expected '$expected', got '$got'"
  exit 1
}
# has WHAT PART COMMAND...: the command's output contains the part
has() {
  local what=$1 part=$2 got=
  told "$what"
  shift 2
  got=$("$@" 2>&1) || true
  case $got in
    *"$part"*) passed=$((passed + 1)) ;;
    *) echo "FAILED: $what: no '$part' in '$got'"; exit 1 ;;
  esac
}
# field POD PATH: the value of a JSONPath in a pod
field() { kubectl get pod "$1" -o "jsonpath=$2"; }
# end_groups NAME: kills everything that a tour left in the control groups of its agent, and removes the groups
end_groups() {
  for _ in 1 2 3; do
    for pid in $(find /sys/fs/cgroup -path "*/reddwarf-$1*/cgroup.procs" -exec cat {} + 2>/dev/null | sort -u); do
      kill -9 "$pid" 2>/dev/null
    done
    find /sys/fs/cgroup -depth -path "*/reddwarf-$1*" -type d -exec rmdir {} \; 2>/dev/null
    [ -z "$(find /sys/fs/cgroup -path "*/reddwarf-$1*" -type d 2>/dev/null)" ] && break
    sleep 0.2
  done
}
