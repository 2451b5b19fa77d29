"""Which labels a changed constitution flips, from the changed principles to the report."""
