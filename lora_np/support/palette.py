"""The colours of every figure and drawing. Grey is what is frozen, vermilion what LoRA trains: always.

From the palette of Okabe and Ito, which people with any form of colour vision can tell apart.
"""

FROZEN = "#8c8c8c"
TRAINABLE = "#d55e00"
FULL = "#0072b2"  # full fine-tuning: everything is trained
OTHERS = ("#009e73", "#cc79a7", "#e69f00", "#56b4e9")
INK = "#222222"
READABLE = 4.5  # the least contrast of text with its ground (WCAG 2.1, level AA)


def contrast(color, ground="#ffffff"):
    """How far two colours differ in luminance, from 1 to 21 (WCAG 2.1). Colours are written "#rrggbb"."""
    light, dark = sorted((_luminance(color), _luminance(ground)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def for_text(color, ground="#ffffff"):
    """The colour, made as much darker as text on this ground needs to be read: lines are wide, letters are not."""
    shade = 100
    while contrast(darker := _scaled(color, shade / 100), ground) < READABLE and shade:
        shade -= 1
    return darker


def _luminance(color):
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in _channels(color))
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def _channels(color):
    return [int(color[i:i + 2], 16) / 255 for i in (1, 3, 5)]


def _scaled(color, factor):
    return "#" + "".join(f"{round(255 * factor * c):02x}" for c in _channels(color))
