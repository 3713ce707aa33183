"""What touches disk: readers, the working store, COG and STAC writers."""
