"""The engine: a plan of images is worked off shard by shard, whatever is computed of them."""
