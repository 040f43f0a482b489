"""What if: several plans told against each other, and one plan told by its causes."""
