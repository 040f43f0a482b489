"""Room: one replica, priced. Arrays over candidates, pure functions, no input or output."""
