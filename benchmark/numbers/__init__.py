"""Pure arithmetic on arrays: jackknife, Frechet distance."""
