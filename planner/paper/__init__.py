"""Room: the source paper's analysis, computed by the cost model and laid next to what it prints.

References
----------
Y. Fu 2024, "Challenges in Deploying Long-Context Transformers: A Theoretical Peak Performance
Analysis", arXiv 2405.08944.
"""
