"""Measurements that anyone can rerun; none of them asserts a time."""
