# Complete what a killed dpkg or apt left behind. $1: seconds to wait for the locks of other package managers.
set -eu
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 LC_ALL=C.UTF-8
umask 022
deadline=$(($(date +%s) + $1))
settings='--option=Dpkg::Options::=--force-confdef --option=Dpkg::Options::=--force-confold'

# Runs a command again while another process holds a lock; prints only the output of a failure.
run() {
  until output=$("$@" 2>&1); do
    case $output in
      *"lock was locked by"* | *"get lock"* | *"Unable to lock"* | *"Unable to acquire"*) ;;
      *) deadline=0 ;;
    esac
    if [ "$(date +%s)" -ge "$deadline" ]; then
      printf '%s\n' "$output" >&2
      exit 1
    fi
    sleep 1
  done
}

run dpkg --force-confdef --force-confold --configure -a
# Files of these are incomplete, and only apt can fetch the package again.
broken=$(dpkg-query --show --showformat='${db:Status-Eflag} ${Package}\n' | sed -n 's/^reinstreq //p')
if [ -n "$broken" ] || ! apt-get check >/dev/null 2>&1; then
  run apt-get --quiet=2 update
  # shellcheck disable=SC2086 # words
  run apt-get --quiet=2 --yes --no-install-recommends $settings --fix-broken ${broken:+--reinstall} install $broken
fi
