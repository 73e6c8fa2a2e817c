#!/bin/sh
# Started by run_playbook.py. ansible-runner stores the environment that it passes on, so the token is read from its file
# only here. The process id lets run_playbook.py interrupt Ansible, which ansible-runner can only kill.
set -eu
echo "$$" >"$SLIPWAY_RUN_DIR/pid"
if [ -f "$SLIPWAY_RUN_DIR/secrets/hcloud_token" ]; then
  HCLOUD_TOKEN=$(cat "$SLIPWAY_RUN_DIR/secrets/hcloud_token")
  export HCLOUD_TOKEN
fi
exec ansible-playbook "$@"
