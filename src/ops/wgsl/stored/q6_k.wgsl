// 52 words a block of 256: low nibbles, upper pairs, sixteen signed scales; then the blocks' scales. In each half of
// 128 values, four runs of 32 share 16 words of nibbles and 8 words of pairs.
fn stored(row: u32, k: u32) -> vec4<f32> {
    let at = row * info[3] + k;
    let block = at / 256u * 52u;
    let part = at % 256u / 128u;
    let run = at % 128u / 32u;
    let column = at % 32u / 4u;
    let low = (bytes(words[block + part * 16u + run % 2u * 8u + column]) >> vec4<u32>(run / 2u * 4u)) & vec4<u32>(15u);
    let high = (bytes(words[block + 32u + part * 8u + column]) >> vec4<u32>(run * 2u)) & vec4<u32>(3u);
    let scale = at % 256u / 16u;
    let step = half_at(2u * info[4] + at / 256u) * signed_byte(words[block + 48u + scale / 4u], scale % 4u);
    return step * (vec4<f32>(low | (high << vec4<u32>(4u))) - 32.0);
}
