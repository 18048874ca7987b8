"""Videos and folders of frames as frames by number: the very frames that decoding all of the file gives."""
