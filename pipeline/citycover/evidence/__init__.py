"""Labels as evidence: what coarse labels of the place say about each pixel, beside the network."""
