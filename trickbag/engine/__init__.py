"""Training: batches, the loop, judging, arithmetic, speed."""
