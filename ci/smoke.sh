#!/bin/sh
# Requests each URL in SMOKE_URLS as a client outside of the platform does: TLS 1.3, certificate verified. Any answer below
# 500 within SMOKE_SECONDS passes. SMOKE_CA_FILE: another certificate authority. SMOKE_CURL_OPTIONS: for example --resolve.
set -eu
if [ -z "${SMOKE_URLS:-}" ]; then
  echo "SMOKE_URLS: is not set. Set it to URLs of this environment, separated by spaces (docs/pipeline.md)." >&2
  exit 4
fi
seconds=${SMOKE_SECONDS:-60}
failed=0
for url in $SMOKE_URLS; do
  deadline=$(($(date +%s) + seconds))
  while :; do
    # shellcheck disable=SC2086 # several options
    result=$(curl --silent --show-error --output /dev/null --tlsv1.3 --max-time 10 ${SMOKE_CA_FILE:+--cacert "$SMOKE_CA_FILE"} \
      ${SMOKE_CURL_OPTIONS:-} --write-out '%{http_code} in %{time_total} s' "$url" 2>&1) && [ "${result%% *}" -lt 500 ] && break
    if [ "$(date +%s)" -ge "$deadline" ]; then
      echo "$url: no answer below 500 within $seconds s: $result" >&2
      failed=1
      continue 2
    fi
    sleep 1
  done
  echo "$url: $result"
done
exit $failed
