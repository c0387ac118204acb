// Byte `index` of the twelve that hold 6-bit scales and minima (`get_scale_min_k4` in ggml-quants.c).
fn packed_scale(block: u32, index: u32) -> u32 {
    return (words[block + 1u + index / 4u] >> (8u * (index % 4u))) & 255u;
}

// Scale and minimum of a run of 32 values.
fn affine(block: u32, run: u32) -> vec2<f32> {
    let d = vec2<f32>(half(words[block] & 0xffffu), half(words[block] >> 16u));
    if (run < 4u) {
        return d * vec2<f32>(vec2<u32>(packed_scale(block, run), packed_scale(block, run + 4u)) & vec2<u32>(63u));
    }
    let low = packed_scale(block, run + 4u);
    let high = vec2<u32>(packed_scale(block, run - 4u), packed_scale(block, run)) >> vec2<u32>(6u);
    return d * vec2<f32>(vec2<u32>(low & 15u, low >> 4u) | (high << vec2<u32>(4u)));
}
