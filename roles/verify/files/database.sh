# Runs on a database host as root, read-only. $1 is a query whose rows are findings, $2 whether backups are enabled (true or
# false). Prints the findings of each part, or why it failed, and then a line "== <part> <exit code>".
cd /

part() {
  name=$1
  shift
  { error=$("$@" 2>&1 >&3 3>&- </dev/null); code=$?; } 3>&1
  [ "$code" = 0 ] || printf '%s\n' "$error"
  echo "== $name $code"
}

# Reads the repositories and the results of the timers, on a primary with backups enabled.
backups() {
  tool=/usr/local/lib/slipway/postgresql-backup
  if [ "$1" != true ] || [ -n "$(find /var/lib/postgresql/*/main -maxdepth 1 -name standby.signal 2>/dev/null)" ]; then
    return 0
  elif [ ! -x "$tool" ]; then
    echo "backups are enabled, and $tool is missing. Run playbooks/postgresql.yml"
  else
    runuser --user postgres -- "$tool" findings
  fi
}

part server psql --username=postgres --no-psqlrc --quiet --tuples-only --no-align --command "$1"
part backups backups "$2"
