"""Scripts that fit the catalog's measurements; nothing of a plan imports this room.

They need ``scipy`` and ``pyarrow``. docs/accuracy.md says how to get the data and run them.
"""
