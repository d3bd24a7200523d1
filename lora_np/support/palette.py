"""The colours of every figure and drawing. Grey is what is frozen, vermilion what LoRA trains: always.

From the palette of Okabe and Ito, which people with any form of colour vision can tell apart.
"""

FROZEN = "#8c8c8c"
TRAINABLE = "#d55e00"
FULL = "#0072b2"  # full fine-tuning: everything is trained
OTHERS = ("#009e73", "#cc79a7", "#e69f00", "#56b4e9")
INK = "#222222"
