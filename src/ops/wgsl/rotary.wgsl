
@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let index = (group.y * groups.x + group.x) * 8u + thread / 8u;
    let lane = thread % 8u;
    let row = index / info[1];
    let head = index % info[1];
    let half = info[3];
    // Threads beyond the last head take part in the barrier with an empty head.
    let end = select(0u, half, row < info[0]);
    let read = $read;
    let write = $write;
$norm
    for (var i = lane; i < end; i += 8u) {
        var a = $from[read + i];
        var b = $from[read + half + i];$steps
        $to[write + i] = a;
        $to[write + half + i] = b;$beside
    }
}
