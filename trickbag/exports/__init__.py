"""A trained classifier for other programs: an ONNX file, a program of torch, a folder of timm, each compared with its run."""
