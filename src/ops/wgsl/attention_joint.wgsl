
/// What a block of queries sees: the keys before `end`.
struct Sight {
    end: u32,
}

fn sight_of(first: u32) -> Sight {
    return Sight(info[1]);
}

fn any_visible(block: u32, sight: Sight) -> bool {
    return true;
}

fn queries_of(row: u32) -> u32 {
    return 0u;
}

fn visible(key: u32, sight: Sight, mine: u32) -> vec4<bool> {
    return vec4<bool>(key < sight.end);
}
