"""Training: the iteration in each of its forms, and the loop, precision, devices and log around it."""
