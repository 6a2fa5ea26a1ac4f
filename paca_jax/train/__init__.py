"""The loop, its step and state, optimizer and schedule, checkpoints, evaluation."""
