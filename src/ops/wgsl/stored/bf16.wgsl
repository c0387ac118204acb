fn stored(row: u32, k: u32) -> vec4<f32> {
    let at = (row * info[3] + k) / 2u;
    let a = words[at];
    let b = words[at + 1u];
    return bitcast<vec4<f32>>(vec4<u32>(a << 16u, a & 0xffff0000u, b << 16u, b & 0xffff0000u));
}
