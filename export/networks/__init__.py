"""The networks: each file readable whole, each loss beside its network."""
