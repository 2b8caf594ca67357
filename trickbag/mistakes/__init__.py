"""Looking at mistakes: what a run or a study got wrong, and which labels are probably wrong."""
