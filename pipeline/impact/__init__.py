"""Which labels a changed constitution changes: a run labeled again, and what it cost."""
