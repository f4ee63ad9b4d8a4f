"""The run directory: plan, shards, and how they are read again."""
