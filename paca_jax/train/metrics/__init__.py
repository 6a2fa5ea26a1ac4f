"""What a run tells while it trains: `metrics.jsonl`, TensorBoard's events, and lines of the log."""
