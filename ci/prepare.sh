# shellcheck shell=sh
# Sourced by jobs. The execution environment has Ansible; on other runners the locked Python environment is installed.
if ! python3 -c 'import ansible_runner' 2>/dev/null; then
  lab/setup.sh --python
  # shellcheck source=/dev/null
  . .venv/bin/activate
fi
