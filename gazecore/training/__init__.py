"""Maximum-likelihood training of the readout, in plain torch."""
