"""What a replica can be: operating points and combinations of options, listed and priced as arrays."""
