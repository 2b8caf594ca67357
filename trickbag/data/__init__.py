"""What a data set is: its table, its pixels, what is wrong with it."""
