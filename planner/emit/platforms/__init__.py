"""One module per platform: launches become files."""
