"""Where to cut images, and the pieces as files."""
