fn stored(row: u32, k: u32) -> vec4<f32> {
    let at = (row * info[3] + k) / 2u;
    let a = words[at];
    let b = words[at + 1u];
    return vec4<f32>(half(a & 0xffffu), half(a >> 16u), half(b & 0xffffu), half(b >> 16u));
}
