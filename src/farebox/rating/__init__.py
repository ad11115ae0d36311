"""From quantities to exact amounts: one function a price model, every part explained."""
