# Runs on the host of GitLab Runner as root, read-only. $1 is the address of the metrics, $2 the version. Prints the findings of each part,
# or why it failed, and then a line "== <part> <exit code>".
cd /

part() {
  name=$1
  shift
  output=$("$@" 2>&1 </dev/null) && code=0 || code=$?
  [ -z "$output" ] || printf '%s\n' "$output"
  echo "== $name $code"
}

release() {
  metrics=$(curl --silent --show-error --fail --max-time 10 "http://$1/metrics") || return
  running=$(printf '%s\n' "$metrics" | sed -n 's/^gitlab_runner_version_info{.*version="\([^"]*\)".*/\1/p')
  case $running in
    "$2" | "$2"-*) echo "$running" ;;
    *) echo "the running process has version ${running:-unknown} instead of $2"; return 1 ;;
  esac
}

# The server accepts every token; this is also the newest contact.
tokens() {
  output=$(timeout 60 gitlab-runner verify 2>&1) && return
  code=$?
  printf '%s\n' "$output" | grep --extended-regexp 'ERROR|FATAL' || printf '%s\n' "$output" | tail --lines=1
  return "$code"
}

part service systemctl is-active --quiet gitlab-runner.service
part release release "$1" "$2"
part tokens tokens
part firewall sh -c 'nft list chain inet gitlab_runner build >/dev/null'
part prune systemctl is-active --quiet gitlab-runner-prune.timer
