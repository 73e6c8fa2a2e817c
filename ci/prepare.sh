# shellcheck shell=sh
# Sourced by jobs. The execution environment has Ansible; on other runners the locked Python environment is installed.
if ! python3 -c 'import ansible_runner' 2>/dev/null; then
  lab/setup.sh --python
  # shellcheck source=/dev/null
  . .venv/bin/activate
fi
# A runner cancels by a signal to all processes of the job. A shell without a trap would end before run_playbook.py has
# interrupted Ansible, and the runner would start the next job meanwhile.
trap : TERM INT
