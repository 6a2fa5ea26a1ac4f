"""The data set `scenes`: garments of Fashion-MNIST on photographs, with the class and the object of every pixel."""
