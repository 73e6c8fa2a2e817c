WITH objects AS (SELECT CASE relkind WHEN 'S' THEN 'sequence' ELSE 'table' END AS kind, relacl FROM pg_class
  WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v', 'm', 'p', 'S'))
SELECT json_build_object('database', current_database(),
  'extensions', (SELECT json_agg(extname) FROM pg_extension),
  'schema', (SELECT json_object_agg(holder, rights) FROM (SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee) END
      AS holder, json_agg(privilege_type) AS rights FROM pg_namespace, aclexplode(coalesce(nspacl, acldefault('n', nspowner)))
      WHERE nspname = 'public' GROUP BY 1) s),
  'defaults', (SELECT json_object_agg(kind, grants) FROM (SELECT kind, json_object_agg(holder, rights) AS grants FROM
      (SELECT defaclobjtype::text AS kind, pg_get_userbyid(grantee) AS holder, json_agg(privilege_type) AS rights
        FROM pg_default_acl, aclexplode(defaclacl) WHERE defaclnamespace = 'public'::regnamespace
        AND defaclrole = (SELECT datdba FROM pg_database WHERE datname = current_database()) GROUP BY 1, 2) s GROUP BY 1) t),
  'totals', (SELECT json_object_agg(kind, number) FROM (SELECT kind, count(*) AS number FROM objects GROUP BY 1) s),
  'rights', (SELECT json_object_agg(concat_ws(' ', kind, holder, privilege_type), number) FROM
    (SELECT kind, pg_get_userbyid(grantee) AS holder, privilege_type, count(*) AS number
      FROM objects, aclexplode(relacl) GROUP BY 1, 2, 3) s)
) AS state

