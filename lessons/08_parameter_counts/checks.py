"""Checks of exercise 08. The right answers come from adding up sizes and from trying every rank."""

from lessons.course.checking.tasks import Check, Misconception, Task

NAME = "ex08_parameter_counts"
TITLE = "counting parameters"


def lora_count(d, k, r):
    return d * r + r * k


def break_even(d, k):
    return max(r for r in range(min(d, k) + 1) if lora_count(d, k, r) < d * k)


def largest_rank(d, k, saving):
    return max(r for r in range(min(d, k) + 1) if r == 0 or 1 - lora_count(d, k, r) / (d * k) > saving)


def size(low, high, square=False):
    """Two sides of a weight, drawn from a range."""
    def draw(rng):
        d = int(rng.integers(low, high))
        return (d, d if square else d + int(rng.integers(low, high)))
    return draw


TASKS = (
    Task(
        lora_count, "the count",
        checks=(Check("a square weight", lambda rng: (*size(20, 90, square=True)(rng), int(rng.integers(2, 9))),
                      example=lambda: (4096, 4096, 8)),
                Check("a weight of more columns than rows", lambda rng: (*size(20, 90)(rng), int(rng.integers(2, 9)))),
                Check("4096 x 4096 at several ranks", lambda rng: (4096, 4096, int(rng.integers(2, 65))))),
        hints=("Draw B and A as rectangles beside the weight. How many numbers does each hold?",
               "B is (d, r) and A is (r, k): d r and r k numbers.",
               "return r * (____ + ____)"),
        misconceptions=(
            Misconception(
                "rank-taken-for-the-count", lambda d, k, r: r,
                "Rank r does not mean r numbers: it means r columns of B and r rows of A.",
                "print B.size + A.size for B = np.zeros((4, 1)) and A = np.zeros((1, 6))."),
            Misconception(
                "one-factor-counted", lambda d, k, r: r * d,
                "Both factors are trained: B has d r numbers, A has r k more.",
                "add up p.size over LoraLinear(Linear(5, 3, bias=False), LoraConfig(r=2)).trainable_parameters()."),
            Misconception(
                "only-A-counted", lambda d, k, r: r * k,
                "Both factors are trained: A has r k numbers, B has d r more.",
                "try d = 1000, k = 10, r = 1: B alone has a thousand numbers."),
            Misconception(
                "square-assumed", lambda d, k, r: 2 * d * r,
                "2 d r is right for a square weight only; in general it is r (d + k).",
                "try d = 10, k = 1000, r = 1: A alone has a thousand numbers."),
            Misconception(
                "only-k-times-r", lambda d, k, r: d + k * r,
                "r counts for both sides, r (d + k): in Python, d + k * r is d plus k r.",
                "print 2 + 3 * 4 and (2 + 3) * 4."),
            Misconception(
                "only-d-times-r", lambda d, k, r: d * r + k,
                "r counts for both sides, r (d + k): in Python, r * d + k is r d, plus k.",
                "print 4 * 2 + 3 and 4 * (2 + 3)."),
            Misconception(
                "sizes-multiplied", lambda d, k, r: d * r * r * k,
                "The two factors lie side by side: their sizes add up. They are multiplied as matrices, not as counts.",
                "count the entries of a (4, 1) and a (1, 6) array on paper: 10, not 24."),
            Misconception(
                "the-product-counted", lambda d, k, r: d * k,
                "B A has d k entries, but they are computed from B and A; only these are trained.",
                "vary r: your count does not move."),
        )),
    Task(
        break_even, "the rank",
        checks=(Check("a square weight", size(20, 90, square=True), example=lambda: (4096, 4096)),
                Check("weights whose break-even is a whole number",
                      lambda rng: (12 * (m := int(rng.integers(1, 9))), 4 * m)),
                Check("a weight of more columns than rows", size(20, 90), also=(
                    lambda: (2, 3), lambda: (3, 2), lambda: (5000, 7), lambda: (7, 5000))),
                Check("a weight of one row, where no rank saves anything", lambda rng: (1, int(rng.integers(2, 9))),
                      also=(lambda: (1, 1), lambda: (2, 2)))),
        hints=("Write down when LoRA has fewer numbers than the weight, as an inequality, and solve it for r. What if "
               "both are equal: is that still fewer?",
               "r (d + k) < d k. The largest whole r below d k / (d + k).",
               "return (d * k - ____) // (____)"),
        misconceptions=(
            Misconception(
                "half-the-smaller-side", lambda d, k: (min(d, k) - 1) // 2,
                "d/2 is the break-even of a square weight; in general it is d k / (d + k).",
                "compare r (d + k) with d k for d = 10, k = 1000, r = 9: LoRA has fewer, far above 10/2."),
            Misconception(
                "half-of-d", lambda d, k: d // 2,
                "At d/2 a square weight and LoRA have equally many numbers, and that is not fewer; in general the two "
                "meet at d k / (d + k).",
                "compare r (d + k) with d k for d = k = 8, r = 4, and for d = 10, k = 1000, r = 5."),
            Misconception(
                "rank-of-the-matrix", lambda d, k: min(d, k),
                "B A can have ranks up to min(d, k), but long before that it holds more numbers than the weight.",
                "count both for d = k = 10, r = 10: 200 against 100."),
            Misconception(
                "equal-counted-as-fewer", lambda d, k: d * k // (d + k),
                "At break-even both have the same number: that is not fewer.",
                "compare r (d + k) with d k for d = 12, k = 4, r = 3."),
            Misconception(
                "rounded-to-the-nearest", lambda d, k: round(d * k / (d + k)),
                "The largest rank that still saves is the whole number below d k / (d + k), so round down.",
                "take your rank and compare r (d + k) with d k."),
            Misconception(
                "a-fraction-of-a-rank", lambda d, k: d * k / (d + k),
                "A rank is a whole number; d k / (d + k) is where the two lines cross.",
                "call np.zeros((d, your_rank)): NumPy refuses a fraction."),
            Misconception(
                "one-too-many", lambda d, k: (d * k - 1) // (d + k) + 1,
                "The rank after the last that saves does not save any more.",
                "take your rank and compare r (d + k) with d k."),
        )),
    Task(
        largest_rank, "the rank",
        checks=(Check("a square weight", lambda rng: (*size(300, 900, True)(rng), float(rng.uniform(0.8, 0.97))),
                      example=lambda: (4096, 4096, 0.99)),
                Check("a weight of more columns than rows",
                      lambda rng: (*size(300, 900)(rng), float(rng.uniform(0.8, 0.97)))),
                Check("a saving that one rank meets exactly, which is not over it", lambda rng: (
                    n := 4 * int(rng.integers(2, 20)), n, 0.5), also=(lambda: (8, 8, 0.0), lambda: (6, 3, 0.0))),
                Check("the puzzle: 4096 x 4096, “over 99.8%”", lambda rng: (4096, 4096, 0.998)),
                Check("a saving that no rank reaches", lambda rng: (8, 8, 0.9))),
        hints=("At rank r, which share of d k is saved? For which r is that share above the one asked for?",
               "The saving at rank r is 1 - r (d + k) / (d k). Start at r = 0 and go up while the next rank saves "
               "enough.",
               "while 1 - (r + 1) * (____) / (____) > saving: r += 1"),
        misconceptions=(
            Misconception(
                "one-factor-in-the-saving", lambda d, k, saving: max(
                    r for r in range(min(d, k)) if r == 0 or 1 - r * d / (d * k) > saving),
                "The saving counts both factors. With only one, rank 8 seems to save over 99.8% of 4096 x 4096.",
                "print 1 - 65536 / 4096**2, the saving at r = 8."),
            Misconception(
                "at-least-for-over", lambda d, k, saving: max(
                    r for r in range(min(d, k) + 1) if r == 0 or 1 - r * (d + k) / (d * k) >= saving),
                "“Over” a share is more than it: a rank that saves exactly that share does not count.",
                "print the saving of an 8 x 8 weight at r = 2."),
            Misconception(
                "first-rank-that-fails", lambda d, k, saving: 1 + largest_rank(d, k, saving),
                "This is the first rank that saves too little; the answer is the one before.",
                "print the saving at the rank you return."),
            Misconception(
                "saving-taken-for-what-remains", lambda d, k, saving: max(
                    r for r in range(min(d, k) + 1) if r * (d + k) / (d * k) < saving),
                "A saving of 99.8% leaves 0.2% of the numbers: compare 1 - r (d + k) / (d k) with it.",
                "print the count at your rank for 4096 x 4096 beside 4096 * 4096."),
            Misconception(
                "square-assumed-in-the-saving", lambda d, k, saving: max(
                    r for r in range(min(d, k) + 1) if r == 0 or 1 - 2 * d * r / (d * k) > saving),
                "2 d r is the count for a square weight only; in general it is r (d + k).",
                "compare 2 d r with r (d + k) for d = 10, k = 1000."),
        )),
)
