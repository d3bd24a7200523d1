"""Exercise 08: how many numbers LoRA trains, and when that is fewer.

A weight of d rows and k columns has d k numbers. Its update B A of rank r is made of B (d, r) and A (r, k).
Check your work with: python -m lessons check 08
"""


def lora_count(d, k, r):
    """How many numbers B and A hold together.

    Example: lora_count(4096, 4096, 8) is 65536.
    """
    raise NotImplementedError


def break_even(d, k):
    """The largest rank at which LoRA trains fewer numbers than the weight has; 0 if there is none.

    Example: break_even(4096, 4096) is 2047, because at rank 2048 both have 16,777,216 numbers.
    """
    raise NotImplementedError


def largest_rank(d, k, saving):
    """The largest rank at which LoRA trains "over" this share fewer numbers: more than it, not equal to it.

    saving: a share such as 0.998. 0 if no rank saves that much.
    Example: largest_rank(4096, 4096, 0.99) is 20: rank 20 trains 99.02% fewer numbers, rank 21 only 98.97%.
    """
    raise NotImplementedError
