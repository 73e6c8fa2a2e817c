# Runs on a standby as postgres. Ends with 0 when it streams, and with 1 when it did not come further for 50 seconds: a primary
# that has nothing to do archives a segment each minute.
moved=$(date +%s)
before=
while [ $(($(date +%s) - moved)) -lt 50 ]; do
  said=$(psql --no-psqlrc --tuples-only --no-align --command \
    "SELECT coalesce((SELECT status FROM pg_stat_wal_receiver), 'none'), pg_last_wal_replay_lsn()" 2>/dev/null)
  case $said in streaming*) exit 0 ;; esac
  place=${said#*|}
  [ "$place" = "$before" ] || [ -z "$place" ] || { moved=$(date +%s); before=$place; }
  sleep 1
done
exit 1
