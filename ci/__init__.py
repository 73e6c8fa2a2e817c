"""What the pipeline runs: playbooks through ansible-runner, promotion, rollback."""
