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

// 36 words a block of 256: two scales, twelve bytes of scales and minima, and nibbles of two runs of 32 in 8 words.
fn stored(row: u32, k: u32) -> vec4<f32> {
    let at = row * info[3] + k;
    let block = at / 256u * 36u;
    let run = at % 256u / 32u;
    let quants = (bytes(words[block + 4u + run / 2u * 8u + at % 32u / 4u]) >> vec4<u32>(run % 2u * 4u)) & vec4<u32>(15u);
    let step = affine(block, run);
    return step.x * vec4<f32>(quants) - step.y;
}
