"""The contenders: each a module with VERSION and a class Contender(size, weights, mode) that offers

    loss_and_gradients(x, y)    the loss, and {name: gradient array} of what is trained in this mode
    step(x, y)                  one training step: forward, backward, AdamW

mode is "lora" or "full". The weights' dtype is the precision of everything.
"""

NAMES = {"lora_np": "lora_np", "by_hand": "NumPy by hand", "pytorch": "PyTorch eager",
         "hips": "HIPS autograd", "mygrad_": "MyGrad"}
