// The f16 of 16 bits, exactly: devices may flush subnormal ones, which scales of small weights are.
fn half(bits: u32) -> f32 {
    let magnitude = bits & 0x7fffu;
    let normal = bitcast<f32>((magnitude << 13u) + 0x38000000u);
    let value = select(normal, f32(magnitude) * 5.9604644775390625e-8, magnitude < 0x400u);
    return select(value, -value, (bits & 0x8000u) != 0u);
}

fn half_at(index: u32) -> f32 {
    return half((words[index / 2u] >> (16u * (index % 2u))) & 0xffffu);
}

fn bytes(word: u32) -> vec4<u32> {
    return (vec4<u32>(word) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(255u);
}

fn signed_byte(word: u32, index: u32) -> f32 {
    return f32(bitcast<i32>(word << (24u - 8u * index)) >> 24u);
}
