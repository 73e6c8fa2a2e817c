# Runs on a database host as root, changes nothing. $1 is a query whose rows are sentences about what is wrong.
# Prints what each part found, or why it failed, and then a line "== <part> <exit code>".
cd /

part() {
  name=$1
  shift
  { error=$("$@" 2>&1 >&3 3>&- </dev/null); code=$?; } 3>&1
  [ "$code" = 0 ] || printf '%s\n' "$error"
  echo "== $name $code"
}

# Reads the repositories and what the timers left, on a host that has backups and is no standby.
backups() {
  tool=/usr/local/lib/slipway/postgresql-backup
  [ ! -x "$tool" ] || [ -n "$(find /var/lib/postgresql/*/main -maxdepth 1 -name standby.signal)" ] ||
    runuser --user postgres -- "$tool" findings
}

part server psql --username=postgres --no-psqlrc --quiet --tuples-only --no-align --command "$1"
part backups backups
