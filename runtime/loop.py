"""Make a video close on itself: its second half fades back into its first frame.

With T frames I and a fade of k = T // 2 of them, frame T - 1 - k + j, j = 1 to k, becomes

    (1 - a) I + a I[0]        a = j / (k + 1)

so that the step from the last frame to the first is as large as those of the fade. The first frame stays the input, the
number of frames stays, and what does not move stays bit for bit. What else was tried, and measured, is in
``docs/loop.md``: shifting the video in time from step to step fails with a model that is told its first frame.
"""

import numpy as np


def close_loop(frames: np.ndarray) -> None:
    """Let a video fade back into its first frame, in place.

    Args:
        frames: uint8 [T, H, W, 3].
    """
    count = len(frames) // 2
    first = frames[0].astype(np.float32)
    for step in range(1, count + 1):
        share = np.float32(step / (count + 1))
        frame = frames[len(frames) - 1 - count + step]
        frame[...] = np.rint(frame + share * (first - frame))
