
/// What a block of queries may see: keys before `end` of the segments from `lowest` to `highest`.
struct Sight {
    end: u32,
    lowest: i32,
    highest: i32,
}

/// The same for every thread, so that barriers may follow.
fn sight_of(first: u32) -> Sight {
    var sight = Sight(0u, 0x7fffffff, -1);
    for (var row = first; row < min(first + QUERIES, info[0]); row++) {
        let last = min(seen[2u * row + 1u], i32(info[1]) - 1);
        if (last >= 0) {
            let segment = seen[2u * row];
            sight.end = max(sight.end, u32(last) + 1u);
            sight.lowest = min(sight.lowest, segment);
            sight.highest = max(sight.highest, segment);
        }
    }
    return sight;
}

fn segment_of_key(key: u32) -> i32 {
    return seen[2u * info[0] + min(key, info[1] - 1u)];
}

fn any_visible(block: u32, sight: Sight) -> bool {
    for (var key = block; key < min(block + KEYS, sight.end); key++) {
        let segment = segment_of_key(key);
        if (segment == -1 || (segment >= sight.lowest && segment <= sight.highest)) {
            return true;
        }
    }
    return false;
}

/// The four queries of a thread, a lane each.
struct Queries {
    segment: vec4<i32>,
    last: vec4<i32>,
}

fn queries_of(row: u32) -> Queries {
    let rows = 2u * min(vec4<u32>(row) + DOWN * vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(info[0] - 1u));
    let segment = vec4<i32>(seen[rows.x], seen[rows.y], seen[rows.z], seen[rows.w]);
    let last = vec4<i32>(seen[rows.x + 1u], seen[rows.y + 1u], seen[rows.z + 1u], seen[rows.w + 1u]);
    return Queries(segment, min(last, vec4<i32>(i32(info[1]) - 1)));
}

fn visible(key: u32, sight: Sight, mine: Queries) -> vec4<bool> {
    let segment = vec4<i32>(segment_of_key(key));
    let shared_segment = (segment == vec4<i32>(-1)) | (segment == mine.segment);
    return (vec4<i32>(i32(key)) <= mine.last) & shared_segment;
}
