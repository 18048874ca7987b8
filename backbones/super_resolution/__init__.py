"""Trunks of stride 1: images in; maps of the images' own size out, for heads that enlarge them."""
