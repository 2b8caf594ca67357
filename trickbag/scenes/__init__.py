"""What a data set for detection or segmentation is: images with boxes or with a class for every pixel."""
