//! Scenes to pixels, and the dense truth per cell that an auxiliary training head learns from.

use super::rng::mix;
use super::scene::{Background, Claim, Object, Scene, Shape, Size, Texture, Thing, Tone};

/// Samples per pixel and axis on the objects' edges.
const SUPERSAMPLE: usize = 3;

/// Blocks of speckle per side.
const SPECKLES: f32 = 32.0;

/// Classes of [`cells`], in this order: every [`Thing`] by its index, small, large, the four textures, the three
/// tones.
pub const CELL_CLASSES: usize = Thing::COUNT + Size::ALL.len() + Texture::ALL.len() + Tone::ALL.len();

/// Share of a cell that an object must cover to be marked there when its centre is elsewhere.
pub const CELL_SHARE: f32 = 0.2;

/// The corners of an object in picture coordinates, none for a circle.
///
/// In units of `radius`: a square has half its side at 0.88, a triangle its corners at 1.15, a star its points
/// at 1.15 and its notches at 0.50. Seen sizes then agree between shapes.
pub fn outline(object: &Object) -> Vec<[f32; 2]> {
    use std::f32::consts::{FRAC_PI_4, PI};
    let ring: &[f32] = match object.thing.shape {
        Shape::Circle => &[],
        Shape::Square => &[0.88 * std::f32::consts::SQRT_2; 4],
        Shape::Triangle => &[1.15; 3],
        Shape::Star => &[1.15, 0.50, 1.15, 0.50, 1.15, 0.50, 1.15, 0.50, 1.15, 0.50],
    };
    let first = if object.thing.shape == Shape::Square { FRAC_PI_4 } else { 0.0 };
    ring.iter()
        .enumerate()
        .map(|(corner, reach)| {
            let angle = object.angle + first + 2.0 * PI * corner as f32 / ring.len() as f32;
            let (sin, cos) = angle.sin_cos();
            let length = reach * object.radius;
            [object.center[0] + length * sin, object.center[1] - length * cos]
        })
        .collect()
}

/// Farthest point from an object's centre.
pub fn reach(shape: Shape, radius: f32) -> f32 {
    radius
        * match shape {
            Shape::Circle => 1.0,
            Shape::Square => 0.88 * std::f32::consts::SQRT_2,
            Shape::Triangle | Shape::Star => 1.15,
        }
}

/// Whether a point lies inside, by the even-odd rule on the outline.
fn inside(object: &Object, corners: &[[f32; 2]], point: [f32; 2]) -> bool {
    let [x, y] = [point[0] - object.center[0], point[1] - object.center[1]];
    if corners.is_empty() {
        return x * x + y * y <= object.radius * object.radius;
    }
    let mut odd = false;
    let mut previous = corners[corners.len() - 1];
    for &corner in corners {
        if (corner[1] > point[1]) != (previous[1] > point[1]) {
            let along = (point[1] - corner[1]) / (previous[1] - corner[1]);
            odd ^= point[0] < corner[0] + along * (previous[0] - corner[0]);
        }
        previous = corner;
    }
    odd
}

/// The share of a rectangle that an object covers, from `n` by `n` samples.
fn coverage(object: &Object, corners: &[[f32; 2]], low: [f32; 2], step: [f32; 2], n: usize) -> f32 {
    let hits = (0..n * n).filter(|sample| {
        let at = |axis: usize, k: usize| low[axis] + step[axis] * (k as f32 + 0.5) / n as f32;
        inside(object, corners, [at(0, sample % n), at(1, sample / n)])
    });
    hits.count() as f32 / (n * n) as f32
}

/// A square wave with soft edges of about `soft` of a period, between -1 and 1.
fn wave(position: f32, soft: f32) -> f32 {
    ((2.0 * std::f32::consts::PI * position).sin() / (2.0 * std::f32::consts::PI * soft).sin().max(0.05))
        .clamp(-1.0, 1.0)
}

/// Levels of the background at a point; `pixel` is the side of a pixel.
fn backdrop(background: &Background, point: [f32; 2], pixel: f32) -> [f32; 3] {
    let (sin, cos) = background.angle.sin_cos();
    let along = (point[0] * cos + point[1] * sin) / background.period;
    let across = (point[1] * cos - point[0] * sin) / background.period;
    let soft = 0.5 * pixel / background.period;
    let shade = match background.texture {
        Texture::Plain => 0.0,
        Texture::Striped => wave(along, soft),
        Texture::Checkered => wave(along, soft) * wave(across, soft),
        Texture::Speckled => {
            let block = |value: f32| (value * SPECKLES) as u64;
            let hash = mix(background.seed ^ mix(block(point[0]) << 32 | block(point[1])));
            (hash >> 40) as f32 / 8_388_608.0 - 1.0
        }
    };
    background.level.map(|level| level + background.depth * shade)
}

/// Mixes an object into an RGB plane of `size` by `size` pixels.
fn paint(object: &Object, size: usize, plane: &mut [[f32; 3]]) {
    let corners = outline(object);
    let pixel = 1.0 / size as f32;
    let far = reach(object.thing.shape, object.radius);
    let base = object.thing.color.rgb();
    let color: [f32; 3] = std::array::from_fn(|channel| base[channel] + object.tint[channel]);
    let span = |center: f32| {
        let low = ((center - far) * size as f32).floor().max(0.0) as usize;
        low..(((center + far) * size as f32).ceil().max(0.0) as usize).min(size)
    };
    for row in span(object.center[1]) {
        for column in span(object.center[0]) {
            let low = [column as f32 * pixel, row as f32 * pixel];
            let share = coverage(object, &corners, low, [pixel; 2], SUPERSAMPLE);
            for (level, color) in plane[row * size + column].iter_mut().zip(color) {
                *level += share * (color - *level);
            }
        }
    }
}

/// Draws a scene as `size` by `size` RGB bytes, row by row; edges are anti-aliased.
pub fn draw(scene: &Scene, size: usize) -> Vec<u8> {
    let pixel = 1.0 / size as f32;
    let middle = |index: usize| (index as f32 + 0.5) * pixel;
    let mut plane: Vec<[f32; 3]> = (0..size * size)
        .map(|index| backdrop(&scene.background, [middle(index % size), middle(index / size)], pixel))
        .collect();
    for object in &scene.objects {
        paint(object, size, &mut plane);
    }
    let table = scene.lighting.table();
    plane.iter().flatten().map(|level| table[(level * 4.0).round().clamp(0.0, 1020.0) as usize]).collect()
}

/// What is where: one row of [`CELL_CLASSES`] zeros and ones per cell, cells row by row.
///
/// An object marks a cell with its thing and its size where its centre lies or where it covers at least
/// [`CELL_SHARE`] of the cell; texture and tone are marked in every cell.
///
/// # Shapes
/// - output: `[height * width * CELL_CLASSES]`
pub fn cells(scene: &Scene, height: usize, width: usize) -> Vec<u8> {
    let mut marks = vec![0; height * width * CELL_CLASSES];
    let after_things = Thing::COUNT;
    let after_sizes = after_things + Size::ALL.len();
    for row in marks.chunks_exact_mut(CELL_CLASSES) {
        row[after_sizes + scene.background.texture as usize] = 1;
        row[after_sizes + Texture::ALL.len() + scene.background.tone as usize] = 1;
    }
    let step = [1.0 / width as f32, 1.0 / height as f32];
    for object in &scene.objects {
        let corners = outline(object);
        let home = cell_of(object.center, height, width);
        for (cell, row) in marks.chunks_exact_mut(CELL_CLASSES).enumerate() {
            let low = [(cell % width) as f32 * step[0], (cell / width) as f32 * step[1]];
            if cell == home || coverage(object, &corners, low, step, 8) >= CELL_SHARE {
                row[object.thing.index()] = 1;
                row[after_things + object.size as usize] = 1;
            }
        }
    }
    marks
}

/// How many objects of each thing have their centre in each cell.
///
/// # Shapes
/// - output: `[height * width * Thing::COUNT]`
pub fn centers(scene: &Scene, height: usize, width: usize) -> Vec<u8> {
    let mut counts = vec![0; height * width * Thing::COUNT];
    for object in &scene.objects {
        counts[cell_of(object.center, height, width) * Thing::COUNT + object.thing.index()] += 1;
    }
    counts
}

/// Where what a claim speaks of is: one mark per cell in which such an object has its centre, for
/// the kind named first and then for the one named second (see [`Claim::concerns`]).
///
/// # Shapes
/// - output: `[2 * height * width]`
pub fn places(scene: &Scene, claim: &Claim, height: usize, width: usize) -> Vec<u8> {
    let mut marks = vec![0; 2 * height * width];
    for object in &scene.objects {
        let home = cell_of(object.center, height, width);
        for (plane, concerned) in claim.concerns(object).into_iter().enumerate() {
            marks[plane * height * width + home] |= u8::from(concerned);
        }
    }
    marks
}

/// The cell in which a point of the unit square lies.
fn cell_of(point: [f32; 2], height: usize, width: usize) -> usize {
    let row = ((point[1] * height as f32) as usize).min(height - 1);
    row * width + ((point[0] * width as f32) as usize).min(width - 1)
}
