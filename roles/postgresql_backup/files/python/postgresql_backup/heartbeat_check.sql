SELECT count(*), coalesce(max(at)::text, ''), count(*) FILTER (
  WHERE digest <> sha256(convert_to(concat_ws(' ', number, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'),
    encode(before, 'hex')), 'UTF8')) OR number <> last + 1)
FROM (
  SELECT *, lag(digest) OVER (ORDER BY number) AS before, lag(number) OVER (ORDER BY number) AS last FROM slipway.heartbeat
) s
WHERE before IS NOT NULL OR number = 1
