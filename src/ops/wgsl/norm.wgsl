
var<workgroup> sums: array<f32, 64>;

fn total(value: $item) -> f32 {
    return $total;
}

/// The sum of every thread's value.
fn sum_of_all(value: f32, thread: u32) -> f32 {
    workgroupBarrier();
    sums[thread] = value;
    workgroupBarrier();
    for (var step = 32u; step > 0u; step /= 2u) {
        if (thread < step) {
            sums[thread] += sums[thread + step];
        }
        workgroupBarrier();
    }
    return sums[0];
}
$mean_of
@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = group.y * groups.x + group.x;
    let start = row * info[1];
    // A workgroup beyond the last row takes part in the barriers with an empty row.
    let width = select(0u, info[1], row < info[0]);
    let mean = $mean;
    var squares = $item();
    for (var i = thread; i < width; i += 64u) {
        let value = x[start + i] - mean;
        squares += value * value;
    }
    let variance = sum_of_all(total(squares), thread) / (f32(info[1]) * $lanes);
    let factor = inverseSqrt(variance + bitcast<f32>(info[2]));
    for (var i = thread; i < width; i += 64u) {
        out[start + i] = (x[start + i] - mean) * factor * gamma[i]$shift;
    }
}
