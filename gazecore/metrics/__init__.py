"""How well a density predicts recorded fixations."""
