"""Room: answers and facts for people. Reads plans and catalog entries, computes nothing."""
