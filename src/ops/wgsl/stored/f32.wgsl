fn stored(row: u32, k: u32) -> vec4<f32> {
    let at = row * info[3] + k;
    return bitcast<vec4<f32>>(vec4<u32>(words[at], words[at + 1u], words[at + 2u], words[at + 3u]));
}
