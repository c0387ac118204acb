//! Where objects go: at random without overlap, with two groups on either side of a line where asked.

use super::rng::Rng;
use super::scene::MARGIN;

/// Least space between two objects.
const SPACE: f32 = 0.015;

/// Attempts at a whole layout, and at each object in it, before the grid is used.
const ATTEMPTS: usize = 12;

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

/// Centres for `items`; the dividing line crosses `axis`, and centres keep [`MARGIN`] across it.
///
/// At most five items, of radii that [`super::scene::Size`] allows, always fit.
pub(super) fn place(items: &[Item], axis: usize, rng: &mut Rng) -> Vec<[f32; 2]> {
    (0..ATTEMPTS).find_map(|_| scatter(items, axis, rng)).unwrap_or_else(|| grid(items, axis, rng))
}

/// Largest first, each at the first random free spot.
fn scatter(items: &[Item], axis: usize, rng: &mut Rng) -> Option<Vec<[f32; 2]>> {
    let cut = rng.between(0.35, 0.65);
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by(|&a, &b| items[b].0.total_cmp(&items[a].0));
    let mut centers = vec![[0.0; 2]; items.len()];
    for (done, &index) in order.iter().enumerate() {
        let (reach, side) = items[index];
        let (low, high) = match side {
            Side::Low => (reach, (cut - MARGIN / 2.0).min(1.0 - reach)),
            Side::High => ((cut + MARGIN / 2.0).max(reach), 1.0 - reach),
            Side::Any => (reach, 1.0 - reach),
        };
        if low > high {
            return None;
        }
        centers[index] = (0..4 * ATTEMPTS).find_map(|_| {
            let mut center = [rng.between(reach, 1.0 - reach), rng.between(reach, 1.0 - reach)];
            center[axis] = rng.between(low, high);
            let free = order[..done].iter().all(|&other| {
                let [dx, dy] = [center[0] - centers[other][0], center[1] - centers[other][1]];
                dx.hypot(dy) >= reach + items[other].0 + SPACE
            });
            free.then_some(center)
        })?;
    }
    Some(centers)
}

/// The middles of a three by three grid: low objects fill it from one end of the axis, high ones from the other.
fn grid(items: &[Item], axis: usize, rng: &mut Rng) -> Vec<[f32; 2]> {
    let mut lines: Vec<Vec<usize>> = vec![vec![0, 1, 2]; 3];
    for line in &mut lines {
        rng.shuffle(line);
    }
    let mut centers = vec![[0.5; 2]; items.len()];
    for turn in [Side::Low, Side::High, Side::Any] {
        for (index, _) in items.iter().enumerate().filter(|(_, item)| item.1 == turn) {
            let mut ends = [0, 1, 2];
            match turn {
                Side::Low => {}
                Side::High => ends.reverse(),
                Side::Any => rng.shuffle(&mut ends),
            }
            let spot = ends.into_iter().find_map(|line| lines[line].pop().map(|across| (line, across)));
            let (line, across) = spot.unwrap_or((1, 1));
            centers[index][axis] = (2 * line + 1) as f32 / 6.0;
            centers[index][1 - axis] = (2 * across + 1) as f32 / 6.0;
        }
    }
    centers
}
