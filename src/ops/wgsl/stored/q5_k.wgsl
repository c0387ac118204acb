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

// 44 words a block of 256: as q4_k, with the fifth bits of all runs in 8 words before the nibbles.
fn stored(row: u32, k: u32) -> vec4<f32> {
    let at = row * info[3] + k;
    let block = at / 256u * 44u;
    let run = at % 256u / 32u;
    let column = at % 32u / 4u;
    let low = (bytes(words[block + 12u + run / 2u * 8u + column]) >> vec4<u32>(run % 2u * 4u)) & vec4<u32>(15u);
    let fifth = (bytes(words[block + 4u + column]) >> vec4<u32>(run)) & vec4<u32>(1u);
    let step = affine(block, run);
    return step.x * vec4<f32>(low | (fifth << vec4<u32>(4u))) - step.y;
}
