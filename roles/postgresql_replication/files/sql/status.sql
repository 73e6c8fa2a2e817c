SELECT json_build_object(
  'recovering', pg_is_in_recovery(),
  'received', coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())::text,
  'receiver', (SELECT status FROM pg_stat_wal_receiver)
) AS state
