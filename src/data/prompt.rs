//! What a prompt asks for, its wording, and the elements it consists of.

use super::rng::Rng;
use super::scene::{Claim, Color, Relation, Scene, Shape, Size, Texture, Thing, Tone};
pub use crate::text::PromptType;

/// Most objects in a picture.
pub const MAX_OBJECTS: usize = 5;

/// Most objects of one thing.
pub const MAX_COUNT: usize = 4;

const NUMBERS: [&str; MAX_COUNT] = ["one", "two", "three", "four"];

/// Things of one colour and shape that a prompt mentions together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// Colour and shape.
    pub thing: Thing,
    /// Named size, if any.
    pub size: Option<Size>,
    /// Named number; "a" names none.
    pub count: Option<usize>,
}

/// What a prompt asks for, before it is put into words.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// One to four groups of different things.
    pub groups: Vec<Group>,
    /// Where the first group is, seen from the second.
    pub relation: Option<Relation>,
    /// Named pattern of the background.
    pub texture: Option<Texture>,
    /// Named brightness of the background.
    pub tone: Option<Tone>,
}

impl Group {
    /// Objects that fulfil the words exactly; "a" means one.
    pub fn number(&self) -> usize {
        self.count.unwrap_or(1)
    }

    fn words(&self, article: bool) -> String {
        let size = self.size.map(|size| format!("{} ", size.word())).unwrap_or_default();
        let rest = format!("{size}{}", self.thing.counted(self.number()));
        match self.count {
            Some(count) => format!("{} {rest}", NUMBERS[count - 1]),
            None if !article => rest,
            None if rest.starts_with('o') => format!("an {rest}"),
            None => format!("a {rest}"),
        }
    }
}

impl Description {
    /// A random description with at least four claims and at most [`MAX_OBJECTS`] objects.
    pub fn random(rng: &mut Rng) -> Self {
        let wanted = rng.pick(&[1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3, 4]);
        let mut groups: Vec<Group> = Vec::with_capacity(wanted);
        let mut room = MAX_OBJECTS;
        while groups.len() < wanted {
            let thing = Thing { color: rng.pick(&Color::ALL), shape: rng.pick(&Shape::ALL) };
            if groups.iter().any(|group| group.thing == thing) {
                continue;
            }
            let most = MAX_COUNT.min(room - (wanted - groups.len() - 1));
            let count = rng.chance(0.4).then(|| 1 + rng.below(most));
            let size = rng.chance(0.35).then(|| rng.pick(&Size::ALL));
            room -= count.unwrap_or(1);
            groups.push(Group { thing, size, count });
        }
        let relation = (wanted > 1 && rng.chance(0.75)).then(|| rng.pick(&Relation::ALL));
        let mut texture = rng.chance(0.3).then(|| rng.pick(&Texture::ALL));
        let tone = rng.chance(0.3).then(|| rng.pick(&Tone::ALL));
        if wanted == 1 && groups[0].size.is_none() && groups[0].count.is_none() && tone.is_none() {
            texture = texture.or_else(|| Some(rng.pick(&Texture::ALL)));
        }
        Self { groups, relation, texture, tone }
    }

    /// Everything the prompt requires, each once: per group the shape, the colour, both together, the named size
    /// and number; then relation, texture and tone.
    pub fn claims(&self) -> Vec<Claim> {
        let mut claims = Vec::new();
        for &Group { thing, size, count } in &self.groups {
            claims.extend([Claim::Shape(thing.shape), Claim::Color(thing.color), Claim::Thing(thing)]);
            claims.extend(size.map(|size| Claim::Size(size, thing)));
            claims.extend(count.map(|count| Claim::Count(count, thing)));
        }
        if let (Some(relation), [first, second, ..]) = (self.relation, self.groups.as_slice()) {
            claims.push(Claim::Place(first.thing, relation, second.thing));
        }
        claims.extend(self.texture.map(Claim::Texture));
        claims.extend(self.tone.map(Claim::Tone));
        let mut once = Vec::with_capacity(claims.len());
        for claim in claims {
            if !once.contains(&claim) {
                once.push(claim);
            }
        }
        once
    }

    /// Number of objects of `thing` that the prompt speaks of.
    fn number(&self, thing: Thing) -> usize {
        self.groups.iter().find(|group| group.thing == thing).map_or(1, Group::number)
    }

    /// The prompt in one of several wordings, with the type of that wording: words strung together with commas count
    /// as [`PromptType::Real`], whole phrases as [`PromptType::Synthetic`].
    pub fn wording(&self, rng: &mut Rng) -> (String, PromptType) {
        if rng.chance(0.35) {
            (self.tags(rng), PromptType::Real)
        } else {
            (self.phrase(rng), PromptType::Synthetic)
        }
    }

    fn tags(&self, rng: &mut Rng) -> String {
        let mut tags: Vec<String> = self.groups.iter().map(|group| group.words(false)).collect();
        if let (Some(relation), true) = (self.relation, tags.len() > 1) {
            let second = tags.remove(1);
            tags[0] = format!("{} {} {second}", tags[0], relation.words());
        }
        tags.extend(self.background());
        rng.shuffle(&mut tags);
        tags.join(", ")
    }

    fn phrase(&self, rng: &mut Rng) -> String {
        let start = rng.pick(&["", "", "a picture of ", "an image of ", "a drawing of "]);
        let parts: Vec<String> = self.groups.iter().map(|group| group.words(true)).collect();
        let mut text = format!("{start}{}", parts[0]);
        for (index, part) in parts.iter().enumerate().skip(1) {
            let link = match self.relation {
                Some(relation) if index == 1 => relation_words(relation, rng),
                _ => rng.pick(&["and", "and", "with", "next to"][..if index == 1 { 2 } else { 3 }]),
            };
            text = format!("{text} {link} {part}");
        }
        if let Some(background) = self.background() {
            let link = rng.pick(&[" on a ", " on a ", ", ", " with a "]);
            text = format!("{text}{link}{background}");
        }
        text
    }

    fn background(&self) -> Option<String> {
        let words: Vec<&str> =
            self.tone.map(Tone::word).into_iter().chain(self.texture.map(Texture::word)).collect();
        (!words.is_empty()).then(|| format!("{} background", words.join(" ")))
    }

    /// The element that asks for a claim, with its category: `red circle (color)`.
    ///
    /// A shape is asked as `shape` or `object`, a colour as `color`, a thing as `object` or `color`, a size as
    /// `attribute`, a number as `counting`, a relation as `spatial`, a texture as `location`, a tone as `other`.
    pub fn element(&self, claim: &Claim, rng: &mut Rng) -> String {
        match *claim {
            Claim::Shape(shape) => format!("{} ({})", shape.word(), rng.pick(&["shape", "shape", "object"])),
            Claim::Color(color) => format!("{} (color)", color.word()),
            Claim::Thing(thing) => format!("{} ({})", thing.words(), rng.pick(&["object", "color"])),
            Claim::Size(size, thing) => {
                format!("{} {} (attribute)", size.word(), thing.counted(self.number(thing)))
            }
            Claim::Count(count, thing) => {
                format!("{} {} (counting)", NUMBERS[count - 1], thing.counted(count))
            }
            Claim::Place(first, relation, second) => {
                let [first, second] = [first, second].map(|thing| thing.counted(self.number(thing)));
                format!("{first} {} {second} (spatial)", relation.words())
            }
            Claim::Texture(texture) => format!("{} background (location)", texture.word()),
            Claim::Tone(tone) => format!("{} background (other)", tone.word()),
        }
    }

    /// The overall label: `1 + 4 (fulfilled claims / claims)`, on [1, 5].
    pub fn score(&self, scene: &Scene) -> f64 {
        let claims = self.claims();
        let fulfilled = claims.iter().filter(|claim| scene.holds(claim)).count();
        1.0 + 4.0 * fulfilled as f64 / claims.len().max(1) as f64
    }
}

/// A relation within a phrase.
fn relation_words(relation: Relation, rng: &mut Rng) -> &'static str {
    match relation {
        Relation::LeftOf => rng.pick(&["left of", "to the left of"]),
        Relation::RightOf => rng.pick(&["right of", "to the right of"]),
        Relation::Above => "above",
        Relation::Below => rng.pick(&["below", "under"]),
    }
}
