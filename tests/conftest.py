"""What all tests share."""

import torch
from hypothesis import settings

# Every run tests the same examples, however slow the machine is just then.
settings.register_profile("trickbag", deadline=None, derandomize=True, database=None)
settings.load_profile("trickbag")

torch.set_num_threads(1)
