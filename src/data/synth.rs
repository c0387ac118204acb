//! Prompts with pictures that fulfil them in part, and the labels that follow from the picture.
//!
//! A prompt is described first; then a picture is planned that keeps a random share of the description and
//! changes the rest into near misses (another colour, shape, number, size, side or background; colours swapped
//! between two groups). Labels come from the drawn scene alone, never from the plan.

use super::draw::draw;
use super::layout::{self, Side};
use super::prompt::{Description, MAX_COUNT, MAX_OBJECTS};
use super::rng::Rng;
use super::scene::{
    Background, Claim, Color, Lighting, MARGIN, Object, Relation, Scene, Shape, Size, Texture, Thing, Tone,
};
use crate::Result;
use crate::image::Picture;
use crate::text::PromptType;

/// Fewest and most elements of a sample.
pub const ELEMENTS: std::ops::RangeInclusive<usize> = 4..=8;

/// A prompt, a picture and their labels.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Seed and index: `00000000000000ff-0000012`.
    pub id: String,
    /// The words.
    pub prompt: String,
    /// How the words are put.
    pub prompt_type: PromptType,
    /// Four to eight different elements, `red circle (color)`, and whether the picture shows each.
    pub elements: Vec<(String, bool)>,
    /// What each element claims.
    pub asked: Vec<Claim>,
    /// The overall label on [1, 5], see [`Description::score`]; it counts all claims, asked or not.
    pub score: f64,
    /// What the prompt asks for.
    pub description: Description,
    /// What is in the picture: see [`super::draw::cells`] and [`super::draw::centers`] for dense labels.
    pub scene: Scene,
    /// Side of the picture in pixels.
    pub size: usize,
    /// `size * size` RGB bytes, row by row.
    pub rgb: Vec<u8>,
}

impl Sample {
    /// The picture as the rest of the crate takes it.
    ///
    /// # Errors
    /// Where the side is zero.
    pub fn picture(&self) -> Result<Picture> {
        Picture::new(self.size, self.size, self.rgb.clone())
    }
}

/// Samples by index.
///
/// The same seed, index and size give the same sample; between machines a pixel may differ by a level where their
/// sine and power functions round differently. Streams of different (seed, index) are
/// independent for practical purposes: keep one seed for training and another for what is held out.
#[derive(Debug, Clone, Copy)]
pub struct Sampler {
    seed: u64,
    size: usize,
    light: Option<u64>,
}

/// Objects of one thing and size in the planned picture.
#[derive(Debug, Clone, Copy)]
struct Part {
    thing: Thing,
    size: Size,
    count: usize,
}

impl Sampler {
    /// Samples of 64 by 64 pixels.
    pub const fn new(seed: u64) -> Self {
        Self { seed, size: 64, light: None }
    }

    /// The same samples drawn with another side.
    pub const fn with_size(self, size: usize) -> Self {
        Self { size, ..self }
    }

    /// The same samples under another light, drawn within the same bounds.
    pub const fn with_light(self, seed: u64) -> Self {
        Self { light: Some(seed), ..self }
    }

    /// Sample number `index`.
    pub fn sample(&self, index: u64) -> Sample {
        let mut rng = Rng::stream(self.seed, index);
        let description = Description::random(&mut rng);
        let mut scene = depict(&description, &mut rng);
        if let Some(seed) = self.light {
            scene.lighting = lighting(&mut Rng::stream(seed, index));
        }
        let (prompt, prompt_type) = description.wording(&mut rng);
        let asked = ask(&description, &scene, &mut rng);
        let elements =
            asked.iter().map(|claim| (description.element(claim, &mut rng), scene.holds(claim))).collect();
        Sample {
            id: format!("{:016x}-{index:07}", self.seed),
            prompt,
            prompt_type,
            elements,
            asked,
            score: description.score(&scene),
            rgb: draw(&scene, self.size),
            size: self.size,
            description,
            scene,
        }
    }
}

/// Chooses the claims that become elements, so that yes and no are about as frequent in every category.
fn ask(description: &Description, scene: &Scene, rng: &mut Rng) -> Vec<Claim> {
    let mut claims = description.claims();
    rng.shuffle(&mut claims);
    let (mut asked, left): (Vec<Claim>, Vec<Claim>) =
        claims.into_iter().partition(|claim| rng.chance(share(claim, scene)));
    asked.extend(left.into_iter().take(ELEMENTS.start().saturating_sub(asked.len())));
    asked.truncate(*ELEMENTS.end());
    asked
}

/// How often a claim is asked for; found by counting labels over many samples.
///
/// Size, number and place fail most often because the thing itself is missing, from which nothing about them can
/// be learnt: those are asked seldom.
fn share(claim: &Claim, scene: &Scene) -> f32 {
    let missing = |thing: Thing| scene.count(thing) == 0;
    let holds = scene.holds(claim);
    match *claim {
        Claim::Size(_, thing) | Claim::Count(_, thing) if missing(thing) => 0.12,
        Claim::Place(first, _, second) if missing(first) || missing(second) => 0.12,
        Claim::Shape(_) if holds => 0.35,
        Claim::Color(_) if holds => 0.5,
        _ => 1.0,
    }
}

/// A scene that keeps about a random share of what the description says.
fn depict(description: &Description, rng: &mut Rng) -> Scene {
    let wrong = rng.unit().powf(0.8);
    let mut parts: Vec<Option<Part>> = description
        .groups
        .iter()
        .map(|group| {
            let size = group.size.unwrap_or_else(|| rng.pick(&Size::ALL));
            Some(Part { thing: group.thing, size, count: group.number() })
        })
        .collect();
    // Where something is left or above can be asked only of things that are there.
    let spared = description.relation.is_some() && rng.chance(0.3);
    if !spared && rng.chance(0.3 * wrong) {
        swap_colors(&mut parts);
    }
    for index in 0..parts.len() {
        let kept = parts[index].is_some_and(|part| part.thing == description.groups[index].thing);
        if kept && !(spared && index < 2) && rng.chance(1.2 * wrong) {
            parts[index] = replace(&parts, index, description, rng);
        } else if kept {
            vary(&mut parts, index, description, (1.1 * wrong).min(0.7), rng);
        }
    }
    crowd(&mut parts, description, rng);
    let texture = other_or(description.texture, &Texture::ALL, 0.5, rng);
    let tone = other_or(description.tone, &Tone::ALL, 0.5, rng);
    let relation = description.relation.map(|wanted| other_or(Some(wanted), &Relation::ALL, 0.4, rng));
    let objects = arrange(&parts, description, relation, rng);
    Scene { background: background(texture, tone, rng), lighting: lighting(rng), objects }
}

/// `wanted`, or with probability `change` another of `all`; any of them where nothing is wanted.
fn other_or<T: Copy + PartialEq>(wanted: Option<T>, all: &[T], change: f32, rng: &mut Rng) -> T {
    match wanted {
        Some(wanted) if !rng.chance(change) => wanted,
        Some(wanted) => loop {
            let other = rng.pick(all);
            if other != wanted {
                break other;
            }
        },
        None => rng.pick(all),
    }
}

/// Exchanges the colours of the first two groups where that gives two new things.
fn swap_colors(parts: &mut [Option<Part>]) {
    let [Some(first), Some(second), ..] = parts else { return };
    let swapped = [(first.thing, second.thing), (second.thing, first.thing)]
        .map(|(shape, color)| Thing { color: color.color, shape: shape.shape });
    if swapped[0] == first.thing || swapped[0] == second.thing {
        return;
    }
    let others = parts.iter().skip(2).flatten();
    if others.clone().any(|part| swapped.contains(&part.thing)) {
        return;
    }
    for (part, thing) in parts.iter_mut().flatten().zip(swapped) {
        part.thing = thing;
    }
}

/// A near miss for one group: another colour, another shape, both, or nothing.
fn replace(parts: &[Option<Part>], index: usize, description: &Description, rng: &mut Rng) -> Option<Part> {
    let part = parts[index]?;
    let others = parts.iter().flatten().count() > 1;
    if others && rng.chance(0.2) {
        return None;
    }
    let (color, shape) = rng.pick(&[(true, false), (false, true), (true, true), (true, true), (true, true)]);
    for _ in 0..64 {
        let thing = Thing {
            color: if color { rng.pick(&Color::ALL) } else { part.thing.color },
            shape: if shape { rng.pick(&Shape::ALL) } else { part.thing.shape },
        };
        if is_new(thing, parts, description) {
            return Some(Part { thing, ..part });
        }
    }
    (!others).then_some(part)
}

/// Whether a thing is neither in the picture nor in the prompt.
fn is_new(thing: Thing, parts: &[Option<Part>], description: &Description) -> bool {
    parts.iter().flatten().all(|part| part.thing != thing)
        && description.groups.iter().all(|group| group.thing != thing)
}

/// Changes the number and the size of a group that keeps its thing, each with probability `change`; what the
/// prompt does not name stays.
fn vary(parts: &mut [Option<Part>], index: usize, description: &Description, change: f32, rng: &mut Rng) {
    let total: usize = parts.iter().flatten().map(|part| part.count).sum();
    let group = description.groups[index];
    let Some(part) = &mut parts[index] else { return };
    if group.size.is_some() && rng.chance(change) {
        part.size = if part.size == Size::Small { Size::Large } else { Size::Small };
    }
    if group.count.is_some() && rng.chance(change) {
        let most = MAX_COUNT.min(part.count + MAX_OBJECTS.saturating_sub(total));
        let others: Vec<usize> = (1..=most).filter(|&count| count != part.count).collect();
        if !others.is_empty() {
            part.count = rng.pick(&others);
        }
    }
}

/// Adds things that the prompt does not mention.
fn crowd(parts: &mut Vec<Option<Part>>, description: &Description, rng: &mut Rng) {
    while parts.iter().flatten().map(|part| part.count).sum::<usize>() < MAX_OBJECTS && rng.chance(0.3) {
        let thing = Thing { color: rng.pick(&Color::ALL), shape: rng.pick(&Shape::ALL) };
        if is_new(thing, parts, description) {
            parts.push(Some(Part { thing, size: rng.pick(&Size::ALL), count: 1 }));
        }
    }
}

/// Objects with positions at which the first two groups stand in `relation`, and at which the prompt's relation is
/// clearly true or clearly false.
fn arrange(
    parts: &[Option<Part>],
    description: &Description,
    relation: Option<Relation>,
    rng: &mut Rng,
) -> Vec<Object> {
    const ATTEMPTS: usize = 24;
    let both = parts.len() > 1 && parts[0].is_some() && parts[1].is_some();
    let mut scene = Vec::new();
    for attempt in 0..=ATTEMPTS {
        let relation = match relation.filter(|_| both) {
            // The opposite is always clear.
            Some(_) if attempt == ATTEMPTS => description.relation.map(opposite),
            relation => relation,
        };
        scene = objects(parts, relation, rng);
        if is_clear(&scene, description, relation) {
            break;
        }
    }
    scene
}

/// Whether the prompt's relation holds by a margin just where it is the planned one, and else fails without doubt.
fn is_clear(objects: &[Object], description: &Description, relation: Option<Relation>) -> bool {
    let (Some(wanted), [first, second, ..]) = (description.relation, description.groups.as_slice()) else {
        return true;
    };
    let (axis, smaller) = wanted.axis();
    let coordinates = |thing: Thing| {
        objects.iter().filter(move |object| object.thing == thing).map(move |object| object.center[axis])
    };
    let gap = coordinates(first.thing)
        .flat_map(|a| coordinates(second.thing).map(move |b| if smaller { b - a } else { a - b }))
        .min_by(f32::total_cmp);
    match gap {
        None => true,
        Some(gap) if relation == Some(wanted) => gap >= MARGIN,
        Some(gap) => gap <= 0.0,
    }
}

/// The same axis from the other end.
const fn opposite(relation: Relation) -> Relation {
    match relation {
        Relation::LeftOf => Relation::RightOf,
        Relation::RightOf => Relation::LeftOf,
        Relation::Above => Relation::Below,
        Relation::Below => Relation::Above,
    }
}

/// The planned objects with positions, turns and tints.
fn objects(parts: &[Option<Part>], relation: Option<Relation>, rng: &mut Rng) -> Vec<Object> {
    let (axis, smaller) = relation.map_or((0, true), Relation::axis);
    let mut objects = Vec::new();
    let mut items = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let Some(Part { thing, size, count }) = *part else { continue };
        let side = match (relation, index) {
            (Some(_), 0) if smaller => Side::Low,
            (Some(_), 1) if !smaller => Side::Low,
            (Some(_), 0 | 1) => Side::High,
            _ => Side::Any,
        };
        for _ in 0..count {
            let (low, high) = size.radii();
            let radius = rng.between(low, high);
            items.push((super::draw::reach(thing.shape, radius), side));
            let tint = std::array::from_fn(|_| rng.between(-12.0, 12.0));
            objects.push(Object {
                thing,
                size,
                center: [0.5; 2],
                radius,
                angle: rng.between(-0.2, 0.2),
                tint,
            });
        }
    }
    for (object, center) in objects.iter_mut().zip(layout::place(&items, axis, rng)) {
        object.center = center;
    }
    objects
}

/// A background of the given pattern and brightness.
fn background(texture: Texture, tone: Tone, rng: &mut Rng) -> Background {
    let (low, high) = tone.levels();
    let level = rng.between(low, high);
    Background {
        texture,
        tone,
        level: std::array::from_fn(|_| level + rng.between(-5.0, 5.0)),
        depth: rng.between(16.0, 26.0),
        period: rng.between(0.14, 0.24),
        angle: rng.between(0.0, std::f32::consts::PI),
        seed: rng.bits(),
    }
}

/// Random lighting within the bounds that [`Lighting`] names.
fn lighting(rng: &mut Rng) -> Lighting {
    Lighting {
        gain: rng.between(0.85, 1.15),
        contrast: rng.between(0.88, 1.12),
        gamma: rng.between(0.87, 1.15),
    }
}
