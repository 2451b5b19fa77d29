"""Data on its way in and out: prompt sets, finished data sets, and where each row came from."""
