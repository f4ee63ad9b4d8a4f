"""Parts of images: which they are, and how much of the fixations falls on them."""
