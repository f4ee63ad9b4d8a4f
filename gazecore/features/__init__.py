"""Features of the frozen backbone, computed once and kept on disk."""
