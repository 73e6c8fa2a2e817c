SELECT json_build_object(
  'accounts', (SELECT json_object_agg(rolname, json_build_object(
        'login', rolcanlogin, 'inherit', rolinherit, 'limit', rolconnlimit,
        'special', rolsuper OR rolcreatedb OR rolcreaterole OR rolbypassrls, 'replication', rolreplication,
        'verifier', encode(sha256(convert_to(coalesce(rolpassword, ''), 'UTF8')), 'hex'),
        'configuration', coalesce((SELECT to_json(setconfig) FROM pg_db_role_setting WHERE setrole = a.oid AND setdatabase = 0), '[]')))
    FROM pg_authid a WHERE left(rolname, 3) <> 'pg_'),
  'members', (SELECT json_object_agg(member, granted) FROM
    (SELECT m.rolname AS member, json_agg(g.rolname ORDER BY g.rolname) AS granted FROM pg_auth_members x
      JOIN pg_roles m ON m.oid = x.member JOIN pg_roles g ON g.oid = x.roleid GROUP BY 1) s),
  'catalogue', (SELECT json_object_agg(datname, json_build_object('owner', pg_get_userbyid(datdba), 'limit', datconnlimit,
        'acl', (SELECT json_object_agg(holder, rights) FROM (SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee) END
            AS holder, json_agg(privilege_type) AS rights FROM aclexplode(coalesce(datacl, acldefault('d', datdba))) GROUP BY 1) s)))
    FROM pg_database WHERE NOT datistemplate),
  'weak', (SELECT coalesce(json_agg(rolname), '[]') FROM pg_authid WHERE left(rolpassword, 14) <> 'SCRAM-SHA-256$'),
  'pending', (SELECT coalesce(json_agg(name ORDER BY name), '[]') FROM pg_settings WHERE pending_restart),
  'overridden', (SELECT coalesce(json_agg(name ORDER BY name), '[]') FROM pg_settings
    WHERE right(sourcefile, 20) = 'postgresql.auto.conf' AND name <> 'restore_command'
    AND left(name, 15) <> 'recovery_target'),
  'system', (SELECT system_identifier::text FROM pg_control_system()),
  'recovery_settings', EXISTS (SELECT FROM pg_file_settings WHERE right(sourcefile, 20) = 'postgresql.auto.conf'
    AND (name = 'restore_command' OR left(name, 15) = 'recovery_target')),
  'checksums', current_setting('data_checksums'),
  'recovering', pg_is_in_recovery(),
  'receiver', (SELECT status FROM pg_stat_wal_receiver),
  'slots', (SELECT coalesce(json_agg(json_build_object('name', slot_name, 'type', slot_type, 'active', active,
          'wal_status', wal_status)), '[]') FROM pg_replication_slots WHERE NOT temporary),
  'standbys', (SELECT coalesce(json_agg(json_build_object('name', application_name, 'state', state, 'sync', sync_state)), '[]')
    FROM pg_stat_replication),
  'synchronous', current_setting('synchronous_standby_names') <> '',
  'rewind_grants', (SELECT count(*) FROM pg_roles r, unnest(ARRAY['pg_ls_dir(text,boolean,boolean)', 'pg_stat_file(text,boolean)',
      'pg_read_binary_file(text)', 'pg_read_binary_file(text,bigint,bigint,boolean)']) f
    WHERE rolname = 'standby' AND has_function_privilege(r.oid, f::regprocedure, 'EXECUTE')),
  'lookup', obj_description(to_regprocedure('pgbouncer.verifier(text)')::oid, 'pg_proc')
) AS state

