//! Where objects go: into the cells of a loose 3 by 3 grid, with two groups on either side of a line where asked.
//!
//! A small model learns what a shape looks like from some thousand pictures when shapes lie about where its picture
//! tokens do, and from many times as many when they lie anywhere; [`JITTER`] is the compromise.

use super::rng::Rng;

/// Cells per side.
const LINES: usize = 3;

/// Farthest that any picture moves its objects from the middles of their cells, along each axis.
const JITTER: f32 = 0.10;

/// Least space between the circles around two objects that leave the middles of their cells.
const SPACE: f32 = 0.015;

/// Attempts at each object's jitter before it stays in the middle of its cell.
const ATTEMPTS: usize = 8;

/// On which side of the dividing line an object must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Smaller coordinates.
    Low,
    /// Larger coordinates.
    High,
    /// Anywhere.
    Any,
}

/// One object to place: how far it reaches from its centre, and on which side it must be.
pub(super) type Item = (f32, Side);

/// Centres for `items`; the dividing line runs between two lines of cells across `axis`.
///
/// At most five items, of radii that [`super::scene::Size`] allows, always fit.
pub(super) fn place(items: &[Item], axis: usize, rng: &mut Rng) -> Vec<[f32; 2]> {
    let cells = choose(items, axis, rng);
    let middles: Vec<[f32; 2]> =
        cells.iter().map(|cell| cell.map(|line| (line as f32 + 0.5) / LINES as f32)).collect();
    let jitter = JITTER * rng.unit();
    let mut centers = middles.clone();
    for (index, &(reach, _)) in items.iter().enumerate() {
        let moved = (0..ATTEMPTS).find_map(|_| {
            let center = middles[index].map(|middle| {
                let moved = middle + rng.between(-jitter, jitter);
                moved.clamp(reach, 1.0 - reach)
            });
            let free = centers.iter().zip(items).enumerate().all(|(other, (place, (other_reach, _)))| {
                let [dx, dy] = [center[0] - place[0], center[1] - place[1]];
                other == index || dx.hypot(dy) >= reach + other_reach + SPACE
            });
            free.then_some(center)
        });
        centers[index] = moved.unwrap_or(middles[index]);
    }
    centers
}

/// A cell (column, row) of its own for each item, on its side of a random line.
fn choose(items: &[Item], axis: usize, rng: &mut Rng) -> Vec<[usize; 2]> {
    let count = |side: Side| items.iter().filter(|item| item.1 == side).count();
    let (low, high) = (count(Side::Low), count(Side::High));
    let cuts: Vec<usize> =
        (1..LINES).filter(|cut| low <= cut * LINES && high <= (LINES - cut) * LINES).collect();
    let cut = if cuts.is_empty() { 1 } else { rng.pick(&cuts) };
    let mut free: Vec<[usize; 2]> = (0..LINES * LINES).map(|cell| [cell % LINES, cell / LINES]).collect();
    rng.shuffle(&mut free);
    let mut cells = vec![[LINES / 2; 2]; items.len()];
    for turn in [Side::Low, Side::High, Side::Any] {
        for (index, _) in items.iter().enumerate().filter(|(_, item)| item.1 == turn) {
            let fits = |cell: &[usize; 2]| match turn {
                Side::Low => cell[axis] < cut,
                Side::High => cell[axis] >= cut,
                Side::Any => true,
            };
            if let Some(at) = free.iter().position(fits) {
                cells[index] = free.swap_remove(at);
            }
        }
    }
    cells
}
