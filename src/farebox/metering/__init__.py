"""From events to readings, from readings to quantities: evaluate, fold, window."""
