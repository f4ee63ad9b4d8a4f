"""How two runs differ, with or without recorded fixations."""
