DO $$
DECLARE
  function_name text;
BEGIN
  FOREACH function_name IN ARRAY ARRAY[
    'pg_ls_dir(text,boolean,boolean)', 'pg_stat_file(text,boolean)', 'pg_read_binary_file(text)',
    'pg_read_binary_file(text,bigint,bigint,boolean)'
  ] LOOP
    EXECUTE 'GRANT EXECUTE ON FUNCTION pg_catalog.' || function_name || ' TO standby';
  END LOOP;
END
$$
