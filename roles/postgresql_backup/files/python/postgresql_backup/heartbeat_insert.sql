SELECT pg_is_in_recovery() AS standby \gset
\if :standby
\q
\endif
SET client_min_messages = warning;
CREATE SCHEMA IF NOT EXISTS slipway;
CREATE TABLE IF NOT EXISTS slipway.heartbeat (number bigint PRIMARY KEY, at timestamptz NOT NULL, digest bytea NOT NULL);
WITH last AS (
  SELECT number, digest FROM slipway.heartbeat ORDER BY number DESC LIMIT 1
), next AS (
  SELECT coalesce((SELECT number FROM last), 0) + 1 AS number, clock_timestamp() AS at, (SELECT digest FROM last) AS before
)
INSERT INTO slipway.heartbeat
SELECT number, at, sha256(convert_to(concat_ws(' ', number, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'),
  encode(before, 'hex')), 'UTF8'))
FROM next;
DELETE FROM slipway.heartbeat WHERE at < now() - interval '40 days';
-- For a server that was killed: after crash recovery its checkpointer applies archive_timeout only from the next checkpoint on
-- (seen with 17.12), so that WAL would not be archived for a quarter of an hour.
SELECT count(pg_switch_wal()) FROM pg_stat_archiver
WHERE coalesce(last_archived_time, stats_reset) < now() - interval '60 seconds' \g /dev/null
