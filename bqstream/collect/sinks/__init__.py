"""Sinks, one file each; `bqstream.collect.sink` says what a sink is."""
