-- Faults of a PostgreSQL server: each row is a finding of the role verify.
SELECT 'settings wait for a restart: ' || string_agg(name, ', ')
FROM pg_settings WHERE pending_restart HAVING count(*) > 0
UNION ALL
SELECT 'passwords are not stored as SCRAM-SHA-256: ' || string_agg(rolname, ', ')
FROM pg_authid WHERE left(rolpassword, 14) <> 'SCRAM-SHA-256$' HAVING count(*) > 0
UNION ALL
SELECT 'data checksums are off' WHERE current_setting('data_checksums') <> 'on'
UNION ALL
SELECT 'fsync is off' WHERE current_setting('fsync') <> 'on'
UNION ALL
SELECT 'new transactions are read-only (default_transaction_read_only): reset that setting'
WHERE current_setting('default_transaction_read_only') = 'on' AND NOT pg_is_in_recovery()
UNION ALL
SELECT 'the server is in recovery without a primary and accepts no writes'
WHERE pg_is_in_recovery() AND current_setting('primary_conninfo') = ''
UNION ALL
SELECT 'the standby does not stream from its primary'
WHERE pg_is_in_recovery() AND current_setting('primary_conninfo') <> ''
  AND NOT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')
UNION ALL
SELECT 'no standby uses the replication slot ' || slot_name || coalesce(', which is ' || wal_status, '')
FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT active
UNION ALL
SELECT 'synchronous commits wait, because no standby confirms them'
WHERE current_setting('synchronous_standby_names') <> '' AND NOT pg_is_in_recovery()
  AND NOT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum'))
UNION ALL
SELECT 'WAL segments cannot be archived since ' || last_failed_time
FROM pg_stat_archiver WHERE last_failed_time > coalesce(last_archived_time, '-infinity')
UNION ALL
SELECT 'damaged pages were found in ' || string_agg(datname, ', ')
FROM pg_stat_database WHERE checksum_failures > 0 HAVING count(*) > 0
UNION ALL
SELECT 'transaction ids run out in ' || string_agg(datname, ', ')
FROM pg_database WHERE age(datfrozenxid) > 1500000000 HAVING count(*) > 0
UNION ALL
SELECT 'ALTER SYSTEM overrides the declared ' || string_agg(DISTINCT name, ', ') || '. Reset it (ALTER SYSTEM RESET)'
FROM pg_file_settings
WHERE right(sourcefile, 20) = 'postgresql.auto.conf'
  AND name NOT IN ('restore_command', 'primary_conninfo', 'primary_slot_name') AND name NOT LIKE 'recovery\_target%'
HAVING count(*) > 0
UNION ALL
SELECT 'new transactions are read-only in the database ' || coalesce(datname, 'every one')
  || '. Reset it (ALTER DATABASE RESET default_transaction_read_only)'
FROM pg_db_role_setting LEFT JOIN pg_database ON pg_database.oid = setdatabase
WHERE setrole = 0 AND 'default_transaction_read_only=on' = ANY (setconfig)
UNION ALL
SELECT 'roles besides postgres are superusers: ' || string_agg(rolname, ', ')
FROM pg_authid WHERE rolsuper AND oid <> 10 HAVING count(*) > 0
UNION ALL
SELECT 'pg_hba.conf has an error in line ' || line_number || ': ' || error
FROM pg_hba_file_rules WHERE error IS NOT NULL
UNION ALL
SELECT 'pg_hba.conf was changed after the server had read it'
WHERE pg_conf_load_time() < (pg_stat_file(current_setting('hba_file'))).modification
