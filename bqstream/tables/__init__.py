"""Rows as the service nests them, as tables with typed columns: what a sink stores and a data frame holds."""
