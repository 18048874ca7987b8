"""How masks lie in files: the layouts of published data sets, and how a number or a colour stands for a class."""
