"""Training: one iteration in each form it has, and the loop, precision, devices and log around it."""
