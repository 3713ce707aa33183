"""A job into the store on the workers of a Dask cluster."""
