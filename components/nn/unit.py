"""Parts of networks that memory is spared by."""


class Unit:
    """A module that uses its weights in its own forward() and nowhere else, and gives the same for the same arguments.

    So training may compute it again for the gradient, in place of keeping its activations.
    """
