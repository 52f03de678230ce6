"""Commands that talk to a cluster: `submit`, `status`, `preflight` and others, one module each."""
