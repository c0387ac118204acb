// Words of four signed bytes, then the blocks' scales.
fn stored(row: u32, k: u32) -> vec4<f32> {
    let at = row * info[3] + k;
    let quants = bitcast<vec4<i32>>(vec4<u32>(words[at / 4u]) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u);
    return half_at(2u * info[4] + at / 32u) * vec4<f32>(quants);
}
