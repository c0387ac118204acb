//! Byte-level BPE from `tokenizer.json`, in which text can never become an added token.
//!
//! transformers looks for added tokens (`<|im_end|>`, `<think>` ...) in a text before it
//! normalises and splits it. Here the encoder is built without them, so a text is what it
//! says, and the template puts special tokens in by id. Everything else (normaliser,
//! pre-tokeniser, merges) runs as in transformers on a text without added tokens.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    Decoder, Model, NormalizedString, Normalizer, NormalizerWrapper, OffsetReferential, OffsetType,
    PreTokenizedString, PreTokenizer, PreTokenizerWrapper,
};

use crate::{Error, Result};

/// Largest id that is believed; real vocabularies end below 2^18.
const MAX_ID: u32 = 1 << 24;

/// Turns text into ids and back.
pub struct Tokenizer {
    normalizer: Option<NormalizerWrapper>,
    splitter: PreTokenizerWrapper,
    model: BPE,
    added_ids: HashMap<String, u32>,
    added_contents: HashMap<u32, String>,
    vocab_size: usize,
}

impl Tokenizer {
    /// Reads a `tokenizer.json` of the `tokenizers` crate; merges are strings or pairs, and added
    /// tokens may have any id, inside the model's vocabulary too.
    ///
    /// `truncation`, `padding`, `post_processor`, `dropout` and `unk_token` have no effect: they
    /// change or drop text.
    ///
    /// # Errors
    /// [`Kind::Model`](crate::error::Kind::Model) for malformed JSON, merges of unknown tokens and
    /// ids that repeat or contradict each other; [`Kind::Unsupported`](crate::error::Kind::Unsupported)
    /// for anything but byte-level BPE.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        let probe: Probe = parse(bytes)?;
        if let Some(other) = probe.model.kind.filter(|kind| kind != "BPE") {
            return Err(unsupported(format!("tokenizer model is {other:?}, expected \"BPE\"")));
        }
        let file: File = parse(bytes)?;
        let splitter = file
            .pre_tokenizer
            .filter(is_byte_level)
            .ok_or_else(|| unsupported("tokenizer has no byte-level pre-tokenizer".into()))?;
        if !file.normalizer.as_ref().is_none_or(is_unicode_form) {
            return Err(unsupported("tokenizer normaliser is no Unicode normalisation form".into()));
        }
        let affixes = [&file.model.continuing_subword_prefix, &file.model.end_of_word_suffix];
        if affixes.into_iter().flatten().any(|affix| !affix.is_empty()) {
            return Err(unsupported("tokenizer marks words by a prefix or suffix".into()));
        }
        let added = file.added_tokens.unwrap_or_default();
        let vocab_size = check_ids(&file.model.vocab, &added)?;
        let model = file.model.without(&added)?;
        Ok(Self {
            normalizer: file.normalizer,
            splitter,
            model,
            added_contents: added.iter().map(|token| (token.id, token.content.clone())).collect(),
            added_ids: added.into_iter().map(|token| (token.content, token.id)).collect(),
            vocab_size,
        })
    }

    /// The ids of a stretch of text, in which nothing becomes an added token.
    ///
    /// # Errors
    /// [`Kind::Model`](crate::error::Kind::Model) where the vocabulary has no token for a byte of
    /// the text (transformers would leave that byte out silently).
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut normalized = NormalizedString::from(text);
        if let Some(normalizer) = &self.normalizer {
            normalizer.normalize(&mut normalized).map_err(|e| cannot_encode(text, e))?;
        }
        let mut pieces = PreTokenizedString::from(normalized);
        self.splitter.pre_tokenize(&mut pieces).map_err(|e| cannot_encode(text, e))?;
        let mut ids = Vec::new();
        for (piece, _, _) in pieces.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            let tokens = self.model.tokenize(piece).map_err(|e| cannot_encode(text, e))?;
            if tokens.iter().map(|token| token.value.len()).sum::<usize>() != piece.len() {
                return Err(Error::model(format!(
                    "tokenizer has no token for a byte of {:?}",
                    excerpt(text)
                )));
            }
            ids.extend(tokens.iter().map(|token| token.id));
        }
        Ok(ids)
    }

    /// The one id of an answer: of an added token with exactly this content, otherwise of the text.
    ///
    /// # Errors
    /// [`Kind::Model`](crate::error::Kind::Model), naming the text, where it takes no or several ids.
    pub fn single(&self, text: &str) -> Result<u32> {
        if let Some(id) = self.added_id(text) {
            return Ok(id);
        }
        match self.encode(text)?.as_slice() {
            [id] => Ok(*id),
            ids => Err(Error::model(format!(
                "answer {:?} takes {} tokens in this tokenizer, expected 1",
                excerpt(text),
                ids.len()
            ))),
        }
    }

    /// The id of an added token by its content, `<|im_end|>` for instance.
    pub fn added_id(&self, content: &str) -> Option<u32> {
        self.added_ids.get(content).copied()
    }

    /// The id of any token: an added one by its content, an ordinary one in its byte-level
    /// spelling (`Ġred` for ` red`).
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.added_id(token).or_else(|| self.model.token_to_id(token))
    }

    /// The text of ids; added tokens are spelled out and bytes that are no UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// [`Kind::Input`](crate::error::Kind::Input), naming the id, where no token has it.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let mut text = String::new();
        for run in
            ids.chunk_by(|a, b| self.added_contents.contains_key(a) == self.added_contents.contains_key(b))
        {
            if self.added_contents.contains_key(&run[0]) {
                text.extend(run.iter().map(|id| self.added_contents[id].as_str()));
                continue;
            }
            let tokens = run
                .iter()
                .map(|id| {
                    self.model.id_to_token(*id).ok_or_else(|| Error::input(format!("no token has id {id}")))
                })
                .collect::<Result<Vec<_>>>()?;
            let decoded = ByteLevel::default().decode_chain(tokens);
            text.extend(decoded.map_err(|e| Error::internal("cannot decode tokens").with_source(e))?);
        }
        Ok(text)
    }

    /// One more than the largest id: the rows that an embedding table needs.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }
}

/// The part of the file that says whether the rest is worth parsing.
#[derive(Deserialize)]
struct Probe {
    model: ProbeModel,
}

#[derive(Deserialize)]
struct ProbeModel {
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Deserialize)]
struct File {
    added_tokens: Option<Vec<AddedToken>>,
    normalizer: Option<NormalizerWrapper>,
    pre_tokenizer: Option<PreTokenizerWrapper>,
    model: BpeFile,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct BpeFile {
    vocab: Vocab,
    merges: Merges,
    ignore_merges: Option<bool>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
}

/// Merges in the spelling of `tokenizers` 0.20 and later, or the older one with a space between.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merges {
    Pairs(Vec<(String, String)>),
    Lines(Vec<String>),
}

impl Merges {
    fn into_pairs(self) -> Result<Vec<(String, String)>> {
        let lines = match self {
            Self::Pairs(pairs) => return Ok(pairs),
            Self::Lines(lines) => lines,
        };
        let pair = |line: String| match line.split_once(' ') {
            Some((a, b)) if !b.contains(' ') => Ok((a.to_owned(), b.to_owned())),
            _ => Err(Error::model(format!("tokenizer merge {:?} is not two tokens", excerpt(&line)))),
        };
        lines.into_iter().filter(|line| !line.starts_with("#version")).map(pair).collect()
    }
}

impl BpeFile {
    /// The encoder without any token that is also an added one, nor a merge that could form it.
    fn without(self, added: &[AddedToken]) -> Result<BPE> {
        let Self { mut vocab, merges, ignore_merges, .. } = self;
        let mut merges = merges.into_pairs()?;
        let mut removed = HashSet::new();
        for token in added {
            let is_byte = token.content.chars().nth(1).is_none() && vocab.contains_key(&token.content);
            // A byte of ordinary text must stay writable.
            if !is_byte && vocab.remove(&token.content).is_some() {
                removed.insert(token.content.as_str());
            } else if is_byte && token.special {
                return Err(Error::model(format!(
                    "special token {:?} is a byte of ordinary text",
                    token.content
                )));
            }
        }
        if !removed.is_empty() {
            let kept = |token: &str| !removed.contains(token);
            merges.retain(|(a, b)| kept(a) && kept(b) && kept(&format!("{a}{b}")));
        }
        BPE::builder()
            .vocab_and_merges(vocab, merges)
            .ignore_merges(ignore_merges.unwrap_or(false))
            .build()
            .map_err(|e| Error::model("tokenizer model is inconsistent").with_source(e))
    }
}

/// Refuses ids that repeat, contradict each other or are absurd; returns the rows they need.
fn check_ids(vocab: &Vocab, added: &[AddedToken]) -> Result<usize> {
    let mut contents = HashSet::new();
    let mut new = Vec::new();
    for AddedToken { id, content, .. } in added {
        if content.is_empty() || !contents.insert(content) {
            return Err(Error::model(format!("added token {:?} is empty or listed twice", excerpt(content))));
        }
        match vocab.get(content) {
            None => new.push(*id),
            Some(listed) if listed == id => {}
            Some(listed) => {
                let content = excerpt(content);
                return Err(Error::model(format!(
                    "added token {content:?} has id {id}, but id {listed} in the vocabulary"
                )));
            }
        }
    }
    let mut seen = HashSet::new();
    for id in vocab.values().copied().chain(new) {
        if id > MAX_ID || !seen.insert(id) {
            return Err(Error::model(format!("tokenizer id {id} is given twice or absurdly large")));
        }
    }
    Ok(seen.into_iter().max().map_or(0, |id| id as usize + 1))
}

fn is_byte_level(pre_tokenizer: &PreTokenizerWrapper) -> bool {
    match pre_tokenizer {
        PreTokenizerWrapper::ByteLevel(_) => true,
        PreTokenizerWrapper::Sequence(steps) => steps.as_ref().iter().any(is_byte_level),
        _ => false,
    }
}

fn is_unicode_form(normalizer: &NormalizerWrapper) -> bool {
    use NormalizerWrapper::{NFC, NFD, NFKC, NFKD, Sequence};
    match normalizer {
        NFC(_) | NFD(_) | NFKC(_) | NFKD(_) => true,
        Sequence(steps) => steps.as_ref().iter().all(is_unicode_form),
        _ => false,
    }
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|e| Error::model("tokenizer is not a valid tokenizer.json").with_source(e))
}

#[cold]
fn unsupported(message: String) -> Error {
    Error::new(crate::error::Kind::Unsupported, message)
}

#[cold]
fn cannot_encode(text: &str, source: tokenizers::Error) -> Error {
    Error::model(format!("tokenizer cannot encode {:?}", excerpt(text))).with_source(source)
}

/// The first 40 characters, for error messages.
pub(super) fn excerpt(text: &str) -> String {
    let mut characters = text.chars();
    let mut start: String = characters.by_ref().take(40).collect();
    if characters.next().is_some() {
        start.push('…');
    }
    start
}
