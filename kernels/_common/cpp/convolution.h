// What Winograd's loops take (`_common/winograd`), for these and for those who call them.
#pragma once

#include "maps.h"

// What a convolution is, after the maps: tiles of 4x4 or for bfloat16 also 8x8, slices and columns of x, maps of y, and the taps'
// depth and what is around x on each side, in depth and in a slice, how x is seen, and how taps lie.
#define CONVOLUTION                                                                                                    \
    int64_t tile, int64_t slices, int64_t width, int64_t out, int64_t depth, int64_t before, int64_t around,           \
        int64_t edges, int64_t doubled, int64_t lie
