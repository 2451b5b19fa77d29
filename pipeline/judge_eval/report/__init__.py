"""The report of a judge evaluation: page, tables and reliability plot."""
