"""Log densities become statistics and their stored form."""
