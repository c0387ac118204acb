
@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let at = (group.y * groups.x + group.x) * 64u + thread;
    let start = info[1];
    if (at < info[0]) {
        var value = hidden[at];
        if (at >= start && at < start + info[2]) {
            value += features[at - start];
        }
        out[at] = value;
    }
}
