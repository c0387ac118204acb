
// One more than needed from column to column, so that threads that write a row meet different memory banks.
const QUERY_LINE = QUERIES + 1u;
const KEY_LINE = KEYS + 1u;
// Where the pool holds keys after queries, and values after probabilities.
const FIRST_KEY = CHUNK * QUERY_LINE;
const FIRST_VALUE = KEYS * DOWN;
// Below every score; and below that, so that the power of what is hidden is zero before anything is seen.
const LOWEST = -1e29;
const HIDDEN = -1e30;

var<workgroup> pool: array<vec4<f32>, POOL>;
var<workgroup> maxima: array<vec4<f32>, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let first = group.x * QUERIES;
    let head = group.y;
    let x = thread % ACROSS;
    let y = thread / ACROSS;
    let sight = sight_of(first);
    let mine = queries_of(first + y);
    var highest = vec4<f32>(LOWEST);
    var total = vec4<f32>();
$sums
    for (var block = 0u; block < sight.end; block += KEYS) {
        if (!any_visible(block, sight)) {
            continue;
        }
$scores
        for (var column = 0u; column < WIDTH; column += CHUNK) {
            workgroupBarrier();
            load_queries(first, head, column, thread);
            load_keys(block, head, column, thread);
            workgroupBarrier();
            let columns = min(CHUNK, WIDTH - column);
            for (var i = 0u; i < columns; i++) {
                let queries = i * QUERY_LINE + y;
                let keys = FIRST_KEY + i * KEY_LINE + x;
$products
            }
        }
$hide
        let before = highest;
$maximum
        maxima[y * ACROSS + x] = highest;
        workgroupBarrier();
        for (var i = 0u; i < ACROSS; i++) {
            highest = max(highest, maxima[y * ACROSS + i]);
        }
        let shrink = exp2(before - highest);
        total *= shrink;
$probabilities
$rescale
        for (var part = 0u; part < KEYS; part += PART) {
            if (part > 0u) {
                workgroupBarrier();
            }
            load_values(block + part, head, thread);
            workgroupBarrier();
            for (var i = 0u; i < PART; i++) {
                let p = pool[(part + i) * DOWN + y];
                let value = FIRST_VALUE + i * WIDTH + x;
$weigh
            }
        }
    }
    maxima[y * ACROSS + x] = total;
    workgroupBarrier();
    total = vec4<f32>();
    for (var i = 0u; i < ACROSS; i++) {
        total += maxima[y * ACROSS + i];
    }
    let inverse = select(vec4<f32>(), 1.0 / total, highest > vec4<f32>(LOWEST));
$stores
}

fn load_queries(first: u32, head: u32, column: u32, thread: u32) {
    let factor = bitcast<f32>(info[8]);
    for (var i = thread; i < QUERIES * CHUNK; i += 64u) {
        let row = i / CHUNK;
        let at = i % CHUNK;
        if (column + at < WIDTH) {
            let start = min(first + row, info[0] - 1u) * info[3] + head * WIDTH;
            pool[at * QUERY_LINE + row] = $query_buffer[start + column + at] * factor;
        }
    }
}

fn load_keys(block: u32, head: u32, column: u32, thread: u32) {
    for (var i = thread; i < KEYS * CHUNK; i += 64u) {
        let row = i / CHUNK;
        let at = i % CHUNK;
        if (column + at < WIDTH) {
            let start = info[5] + row_of_key(block + row, head);
            pool[FIRST_KEY + at * KEY_LINE + row] = $key_buffer[start + column + at];
        }
    }
}

fn load_values(block: u32, head: u32, thread: u32) {
    for (var i = thread; i < PART * WIDTH; i += 64u) {
        let start = info[6] + row_of_key(block + i / WIDTH, head);
        pool[FIRST_VALUE + i] = $key_buffer[start + i % WIDTH];
    }
}

/// Keys beyond the last are hidden, but what stands in for them must be finite.
fn row_of_key(key: u32, head: u32) -> u32 {
    return min(key, info[1] - 1u) * info[4] + head / info[2] * WIDTH;
}

fn store(row: u32, column: u32, head: u32, value: vec4<f32>) {
    if (row < info[0] && column < WIDTH) {
        out[row * info[7] + head * WIDTH + column] = value;
    }
}
