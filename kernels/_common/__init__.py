"""What operations share and is none itself: choosing a form, registration, casting, sums, autotuning, loops in C++."""
