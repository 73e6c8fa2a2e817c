CREATE SCHEMA IF NOT EXISTS pgbouncer;
DROP FUNCTION IF EXISTS pgbouncer.verifier(text);
CREATE FUNCTION pgbouncer.verifier(wanted text) RETURNS TABLE (role text, verifier text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS
$$ SELECT rolname::text, rolpassword FROM pg_authid WHERE rolname = wanted AND rolcanlogin AND NOT rolsuper AND NOT rolreplication
AND (rolvaliduntil IS NULL OR rolvaliduntil > now()) $$;
REVOKE ALL ON SCHEMA pgbouncer FROM PUBLIC;
GRANT USAGE ON SCHEMA pgbouncer TO pgbouncer;
REVOKE ALL ON FUNCTION pgbouncer.verifier(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgbouncer.verifier(text) TO pgbouncer;
