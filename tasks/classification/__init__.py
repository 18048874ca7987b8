"""Image classification: class folders in; top-1, top-5, a confusion matrix and a calibration error out."""
