# Runs on a database host as root, read-only except for one write that is removed again. $1 is a query whose rows are findings,
# $2 whether backups are enabled, $3 whether to write (true or false). Prints the findings of each part, or why it failed, and
# then a line "== <part> <exit code>".
cd /

part() {
  name=$1
  shift
  { error=$("$@" 2>&1 >&3 3>&- </dev/null); code=$?; } 3>&1
  [ "$code" = 0 ] || printf '%s\n' "$error"
  echo "== $name $code"
}

is_standby() {
  [ -n "$(find /var/lib/postgresql/*/main -maxdepth 1 -name standby.signal 2>/dev/null)" ]
}

# A commit waits for the disk and for a synchronous standby, as that of a client. Nothing remains, even if it is interrupted.
write() {
  [ "$1" != true ] || is_standby || timeout 20 psql --username=postgres --dbname=postgres --no-psqlrc --quiet \
    --command 'CREATE SCHEMA slipway_verify; DROP SCHEMA slipway_verify'
}

# Reads the repositories and the results of the timers, on a primary with backups enabled.
backups() {
  tool=/usr/local/lib/slipway/postgresql-backup
  if [ "$1" != true ] || is_standby; then
    return 0
  elif [ ! -x "$tool" ]; then
    echo "backups are enabled, and $tool is missing. Run playbooks/postgresql.yml"
  else
    runuser --user postgres -- "$tool" findings
  fi
}

part server psql --username=postgres --no-psqlrc --quiet --tuples-only --no-align --command "$1"
part write write "$3"
part backups backups "$2"
