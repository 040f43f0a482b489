"""Choose and prove: branch and bound finds columns, OR-Tools composes the cluster of them."""
