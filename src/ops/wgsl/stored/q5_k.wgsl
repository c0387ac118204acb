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
