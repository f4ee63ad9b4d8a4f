"""One shard of images, scored from start to end without Ray."""
