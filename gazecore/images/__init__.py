"""Image URIs become bytes, and bytes become RGB pixels."""
