"""From rated charges to an invoice: assemble, total, number."""
