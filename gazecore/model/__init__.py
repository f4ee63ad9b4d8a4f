"""DeepGaze II: RGB pixels become log densities of fixations."""
