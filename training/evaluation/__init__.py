"""Judging separators: systems on the same mixtures, statistics, reports and figures."""
