// Four words a block, whose low nibbles are its first 16 values and the high ones the others; then the scales.
fn stored(row: u32, k: u32) -> vec4<f32> {
    let at = row * info[3] + k;
    let block = at / 32u;
    let within = at % 32u;
    let quants = (bytes(words[block * 4u + within % 16u / 4u]) >> vec4<u32>(within / 16u * 4u)) & vec4<u32>(15u);
    return half_at(2u * info[4] + block) * (vec4<f32>(quants) - 8.0);
}
