"""Campaigns that are too long for the tests: `make proof`."""
