"""What becomes of snapshots and packs over time: decided by pure functions, carried out by pipelines and the engine."""
