"""The initial noise of a picture as what is optimised: networks in torch, a reward with a gradient, and the ascent."""
