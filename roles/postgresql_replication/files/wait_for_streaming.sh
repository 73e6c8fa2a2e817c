# Runs on a standby as postgres. Exits with 0 when it streams, and with 1 when it replayed nothing for 50 seconds: a primary archives
# a segment each minute, also when it is idle.
progress_time=$(date +%s)
previous_lsn=
while [ $(($(date +%s) - progress_time)) -lt 50 ]; do
  output=$(psql --no-psqlrc --tuples-only --no-align --command \
    "SELECT coalesce((SELECT status FROM pg_stat_wal_receiver), 'none'), pg_last_wal_replay_lsn()" 2>/dev/null)
  case $output in streaming*) exit 0 ;; esac
  lsn=${output#*|}
  [ "$lsn" = "$previous_lsn" ] || [ -z "$lsn" ] || { progress_time=$(date +%s); previous_lsn=$lsn; }
  sleep 1
done
exit 1
