"""The mark of numbers that losses give beside themselves: engines average and report them, and learn nothing from them."""

MEASURED = "measured/"
"""How the name of such a number begins; it is reported without this."""
