"""The training loop, schedules, optimisers and checkpoints."""
