// 36 words a block of 256: two scales, twelve bytes of scales and minima, and nibbles of two runs of 32 in 8 words.
fn stored(row: u32, k: u32) -> vec4<f32> {
    let at = row * info[3] + k;
    let block = at / 256u * 36u;
    let run = at % 256u / 32u;
    let quants = (bytes(words[block + 4u + run / 2u * 8u + at % 32u / 4u]) >> vec4<u32>(run % 2u * 4u)) & vec4<u32>(15u);
    let step = affine(block, run);
    return step.x * vec4<f32>(quants) - step.y;
}
