// y = epilogue(x wᵗ): x [m, k], w [n, k] as stored, y [m, n], all rows one after the other.
//
// A workgroup of $rows threads computes $rows x 64 outputs, each thread 8 x 8 of them: four rows in two places and four
// columns in two places, so that threads beside each other read words beside each other. The inner axis goes by 32: a
// tile of x and a tile of w, unpacked, lie in workgroup memory as [k][row or column], whole vectors of four neighbours.

$bindings

const ROWS = $rowsu;

var<workgroup> left: array<vec4<f32>, $left_tile>;
var<workgroup> right: array<vec4<f32>, 512>;

$helpers

/// Four rows of x at four places of the inner axis, transposed into the tile.
fn stage_left(job: u32, top: u32, k0: u32) {
    let group = job % (ROWS / 4u);
    let quad = job / (ROWS / 4u);
    let row = top + group * 4u;
    let k = k0 + quad * 4u;
    let t = transpose(mat4x4<f32>(input(row, k), input(row + 1u, k), input(row + 2u, k), input(row + 3u, k)));
    let at = quad * ROWS + group;
    left[at] = t[0];
    left[at + ROWS / 4u] = t[1];
    left[at + ROWS / 2u] = t[2];
    left[at + 3u * (ROWS / 4u)] = t[3];
}

/// Four outputs' weights at four places of the inner axis, unpacked and transposed into the tile.
fn stage_right(job: u32, first: u32, k0: u32) {
    let group = job % 16u;
    let quad = job / 16u;
    let column = first + group * 4u;
    let k = k0 + quad * 4u;
    let t = transpose(mat4x4<f32>(weight(column, k), weight(column + 1u, k), weight(column + 2u, k), weight(column + 3u, k)));
    let at = quad * 64u + group;
    right[at] = t[0];
    right[at + 16u] = t[1];
    right[at + 32u] = t[2];
    right[at + 48u] = t[3];
}

@compute @workgroup_size($rows)
fn main(@builtin(workgroup_id) tile: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let top = tile.y * ROWS;
    let first = tile.x * 64u;
    let tx = thread % 8u;
    let ty = thread / 8u;
$registers
    for (var k0 = 0u; k0 < info[2]; k0 += 32u) {
        for (var job = thread; job < ROWS * 2u; job += ROWS) {
            stage_left(job, top, k0);
        }
        for (var job = thread; job < 128u; job += ROWS) {
            stage_right(job, first, k0);
        }
        workgroupBarrier();
        for (var kk = 0u; kk < 32u; kk++) {
            let a0 = left[kk * (ROWS / 4u) + ty];
            let a1 = left[kk * (ROWS / 4u) + ty + ROWS / 8u];
            let b0 = right[kk * 16u + tx];
            let b1 = right[kk * 16u + tx + 8u];
$accumulate
        }
        workgroupBarrier();
    }
$keep
    for (var i = 0u; i < 8u; i++) {
        let row = top + i / 4u * (ROWS / 2u) + ty * 4u + i % 4u;
        finish(row, first + tx * 4u, left[thread * 8u + i]);
        finish(row, first + tx * 4u + 32u, right[thread * 8u + i]);
    }
}
