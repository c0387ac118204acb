//! Scenes of coloured shapes, and what it means that a claim about a scene is true.
//!
//! Lengths and positions are fractions of the picture's side, x to the right, y down.

pub use super::lighting::Lighting;

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shape {
    /// A disc.
    Circle,
    /// A square, turned by a few degrees at most.
    Square,
    /// An equilateral triangle that points up.
    Triangle,
    /// A star with five points.
    Star,
}

/// The colour of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Color {
    /// (222, 38, 40)
    Red,
    /// (38, 160, 62)
    Green,
    /// (40, 84, 222)
    Blue,
    /// (244, 220, 44)
    Yellow,
    /// (146, 48, 186)
    Purple,
    /// (246, 132, 26)
    Orange,
}

/// How big an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Size {
    /// Radius 0.085 to 0.095.
    Small,
    /// Radius 0.125 to 0.140.
    Large,
}

/// The pattern of the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Texture {
    /// One tone.
    Plain,
    /// Parallel stripes of two tones.
    Striped,
    /// A checkerboard of two tones.
    Checkered,
    /// Small random blocks of many tones.
    Speckled,
}

/// How bright the background is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tone {
    /// Base level 200 to 222.
    Light,
    /// Base level 105 to 118.
    Gray,
    /// Base level 20 to 40.
    Dark,
}

/// Where one kind of thing is, seen from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Relation {
    /// Smaller x.
    LeftOf,
    /// Larger x.
    RightOf,
    /// Smaller y.
    Above,
    /// Larger y.
    Below,
}

impl Shape {
    /// Every shape, in declaration order.
    pub const ALL: [Self; 4] = [Self::Circle, Self::Square, Self::Triangle, Self::Star];

    /// The singular noun.
    pub const fn word(self) -> &'static str {
        ["circle", "square", "triangle", "star"][self as usize]
    }
}

impl Color {
    /// Every colour, in declaration order.
    pub const ALL: [Self; 6] = [Self::Red, Self::Green, Self::Blue, Self::Yellow, Self::Purple, Self::Orange];

    /// The adjective.
    pub const fn word(self) -> &'static str {
        ["red", "green", "blue", "yellow", "purple", "orange"][self as usize]
    }

    /// The 8-bit sRGB value before an object's own tint and the lighting.
    pub const fn rgb(self) -> [f32; 3] {
        [
            [222.0, 38.0, 40.0],
            [38.0, 160.0, 62.0],
            [40.0, 84.0, 222.0],
            [244.0, 220.0, 44.0],
            [146.0, 48.0, 186.0],
            [246.0, 132.0, 26.0],
        ][self as usize]
    }
}

impl Size {
    /// Both sizes.
    pub const ALL: [Self; 2] = [Self::Small, Self::Large];

    /// The adjective.
    pub const fn word(self) -> &'static str {
        ["small", "large"][self as usize]
    }

    /// Smallest and largest radius; large objects fit into neighbouring cells of the layout in every shape.
    pub const fn radii(self) -> (f32, f32) {
        [(0.085, 0.095), (0.125, 0.140)][self as usize]
    }
}

impl Texture {
    /// Every texture, in declaration order.
    pub const ALL: [Self; 4] = [Self::Plain, Self::Striped, Self::Checkered, Self::Speckled];

    /// The adjective.
    pub const fn word(self) -> &'static str {
        ["plain", "striped", "checkered", "speckled"][self as usize]
    }
}

impl Tone {
    /// Every tone, in declaration order.
    pub const ALL: [Self; 3] = [Self::Light, Self::Gray, Self::Dark];

    /// The adjective.
    pub const fn word(self) -> &'static str {
        ["light", "gray", "dark"][self as usize]
    }

    /// Lowest and highest base level; they stay apart under every [`Lighting`].
    pub const fn levels(self) -> (f32, f32) {
        [(200.0, 222.0), (105.0, 118.0), (20.0, 40.0)][self as usize]
    }
}

impl Relation {
    /// Every relation, in declaration order.
    pub const ALL: [Self; 4] = [Self::LeftOf, Self::RightOf, Self::Above, Self::Below];

    /// The words between the two things.
    pub const fn words(self) -> &'static str {
        ["left of", "right of", "above", "below"][self as usize]
    }

    /// The axis (0 for x, 1 for y) and whether the first thing has the smaller coordinate.
    pub const fn axis(self) -> (usize, bool) {
        [(0, true), (0, false), (1, true), (1, false)][self as usize]
    }
}

/// A colour and a shape: what questions are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Thing {
    /// Its colour.
    pub color: Color,
    /// Its shape.
    pub shape: Shape,
}

impl Thing {
    /// Number of different things.
    pub const COUNT: usize = Color::ALL.len() * Shape::ALL.len();

    /// Position among all things, shapes outermost: below [`Thing::COUNT`].
    pub const fn index(self) -> usize {
        self.shape as usize * Color::ALL.len() + self.color as usize
    }

    /// `red circle`.
    pub fn words(self) -> String {
        format!("{} {}", self.color.word(), self.shape.word())
    }

    /// `red circles` unless `count` is one.
    pub fn counted(self, count: usize) -> String {
        let plural = if count == 1 { "" } else { "s" };
        format!("{}{plural}", self.words())
    }
}

/// One drawn object.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Colour and shape.
    pub thing: Thing,
    /// Its size class.
    pub size: Size,
    /// Centre as (x, y).
    pub center: [f32; 2],
    /// Radius of a circle; [`super::draw::outline`] says how the other shapes relate to it.
    pub radius: f32,
    /// Turn in radians, at most 0.2 either way.
    pub angle: f32,
    /// Levels added to the colour, at most 12 either way per channel.
    pub tint: [f32; 3],
}

/// What is behind the objects.
#[derive(Debug, Clone, PartialEq)]
pub struct Background {
    /// The pattern.
    pub texture: Texture,
    /// How bright.
    pub tone: Tone,
    /// Base level per channel, 0 to 255.
    pub level: [f32; 3],
    /// Half the difference between the two tones of a pattern, in levels.
    pub depth: f32,
    /// Length of one period of stripes or checks.
    pub period: f32,
    /// Direction of the stripes or checks in radians.
    pub angle: f32,
    /// Seed of the speckles.
    pub seed: u64,
}

/// Everything that [`super::draw::draw`] needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Scene {
    /// Behind the objects.
    pub background: Background,
    /// Over everything.
    pub lighting: Lighting,
    /// One to five objects that do not overlap.
    pub objects: Vec<Object>,
}

/// Something that a prompt says; [`Scene::holds`] decides whether a scene fulfils it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Claim {
    /// At least one object has this shape.
    Shape(Shape),
    /// At least one object has this colour.
    Color(Color),
    /// At least one object has this colour and this shape.
    Thing(Thing),
    /// At least one of these things has this size.
    Size(Size, Thing),
    /// There are exactly so many of these things.
    Count(usize, Thing),
    /// Both things are there, and every one of the first is clearly (by [`MARGIN`]) on this side of every
    /// one of the second.
    Place(Thing, Relation, Thing),
    /// The background has this pattern.
    Texture(Texture),
    /// The background is this bright.
    Tone(Tone),
}

impl Claim {
    /// Whether an object is of the kind that the claim names first, and of the kind that it names
    /// second: only a place names two, a background none. A size counts, a number does not.
    pub fn concerns(&self, object: &Object) -> [bool; 2] {
        let is = |thing: Thing| object.thing == thing;
        match *self {
            Self::Shape(shape) => [object.thing.shape == shape, false],
            Self::Color(color) => [object.thing.color == color, false],
            Self::Thing(thing) | Self::Count(_, thing) => [is(thing), false],
            Self::Size(size, thing) => [is(thing) && object.size == size, false],
            Self::Place(first, _, second) => [is(first), is(second)],
            Self::Texture(_) | Self::Tone(_) => [false; 2],
        }
    }
}

/// Least distance of centres along the axis of a relation that holds, as a fraction of the side.
/// Drawn scenes leave no doubt: where the prompt's relation fails, some pair is at or beyond zero.
pub const MARGIN: f32 = 0.10;

impl Scene {
    /// How many objects are this thing.
    pub fn count(&self, thing: Thing) -> usize {
        self.objects.iter().filter(|object| object.thing == thing).count()
    }

    /// Least signed distance along the relation's axis over all pairs of the two things, positive where the
    /// first is on the stated side; `None` where one of them is missing.
    pub fn gap(&self, first: Thing, relation: Relation, second: Thing) -> Option<f32> {
        let (axis, smaller) = relation.axis();
        let sign = if smaller { 1.0 } else { -1.0 };
        let of = |thing| self.objects.iter().filter(move |object| object.thing == thing);
        of(first)
            .flat_map(|a| of(second).map(move |b| sign * (b.center[axis] - a.center[axis])))
            .min_by(f32::total_cmp)
    }

    /// Whether the claim is true of this scene, as each [`Claim`] defines it.
    pub fn holds(&self, claim: &Claim) -> bool {
        let any = |test: &dyn Fn(&Object) -> bool| self.objects.iter().any(test);
        match *claim {
            Claim::Shape(shape) => any(&|object| object.thing.shape == shape),
            Claim::Color(color) => any(&|object| object.thing.color == color),
            Claim::Thing(thing) => any(&|object| object.thing == thing),
            Claim::Size(size, thing) => any(&|object| object.thing == thing && object.size == size),
            Claim::Count(count, thing) => self.count(thing) == count,
            Claim::Place(first, relation, second) => {
                self.gap(first, relation, second).is_some_and(|gap| gap >= MARGIN)
            }
            Claim::Texture(texture) => self.background.texture == texture,
            Claim::Tone(tone) => self.background.tone == tone,
        }
    }
}
