# Runs on a database host as root, changes nothing. $1 is a query whose rows are sentences about what is wrong, $2 whether
# backups are on (true or false).
# Prints what each part found, or why it failed, and then a line "== <part> <exit code>".
cd /

part() {
  name=$1
  shift
  { error=$("$@" 2>&1 >&3 3>&- </dev/null); code=$?; } 3>&1
  [ "$code" = 0 ] || printf '%s\n' "$error"
  echo "== $name $code"
}

# Reads the repositories and what the timers left, on a host whose backups are on and that is no standby.
backups() {
  tool=/usr/local/lib/slipway/postgresql-backup
  if [ "$1" != true ] || [ -n "$(find /var/lib/postgresql/*/main -maxdepth 1 -name standby.signal 2>/dev/null)" ]; then
    return 0
  elif [ ! -x "$tool" ]; then
    echo "backups are on, and $tool is missing. Run playbooks/postgresql.yml"
  else
    runuser --user postgres -- "$tool" findings
  fi
}

part server psql --username=postgres --no-psqlrc --quiet --tuples-only --no-align --command "$1"
part backups backups "$2"
