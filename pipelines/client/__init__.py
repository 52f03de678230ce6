"""What talks to a cluster: `submit`, `status`, `preflight` and the other commands, one module each."""
