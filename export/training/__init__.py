"""Data, degradations, the teacher's cache and one trainer."""
