"""One run of guide and model: the unscaled log-densities of each site, per example and per particle."""
