//! The decoder's part of `config.json`, the same for every family but for a few keys.

use serde_json::{Value, json};

use super::TextConfig;
use super::json::Object;
use super::model::{MAX_DEPTH, MAX_VOCAB, MAX_WIDTH};
use crate::{Error, Result};

/// What a family says about its decoder by itself.
pub(super) struct Own {
    /// Queries, keys and values have a bias.
    pub(super) attention_bias: bool,
    /// Every query and key head has a norm.
    pub(super) qk_norm: bool,
    /// Width of a head.
    pub(super) head_dim: usize,
    /// Base of the rotary frequencies, and their sections.
    pub(super) rope: (f64, [usize; 3]),
    /// Whether the head is the embedding table.
    pub(super) tied: bool,
}

/// Reads what all decoders have.
pub(super) fn read(object: &Object<'_>, own: &Own) -> Result<TextConfig> {
    object.only_text("hidden_act", &["silu"])?;
    let heads = object.count("num_attention_heads", 1..=4096)?;
    let config = TextConfig {
        vocab_size: object.count("vocab_size", 1..=MAX_VOCAB)?,
        hidden_size: object.count("hidden_size", 1..=MAX_WIDTH)?,
        intermediate_size: object.count("intermediate_size", 1..=MAX_WIDTH)?,
        num_hidden_layers: object.count("num_hidden_layers", 1..=MAX_DEPTH)?,
        num_attention_heads: heads,
        num_key_value_heads: object.optional_count("num_key_value_heads", 1..=4096)?.unwrap_or(heads),
        head_dim: own.head_dim,
        attention_bias: own.attention_bias,
        qk_norm: own.qk_norm,
        rms_norm_eps: object
            .number("rms_norm_eps", 0.0, 0.1)?
            .ok_or_else(|| object.missing("rms_norm_eps"))?,
        rope_theta: own.rope.0,
        mrope_section: own.rope.1,
        max_position_embeddings: object.count("max_position_embeddings", 1..=1 << 30)?,
        tie_word_embeddings: own.tied,
    };
    check(object, &config)?;
    Ok(config)
}

fn check(object: &Object<'_>, config: &TextConfig) -> Result<()> {
    let TextConfig { head_dim, num_attention_heads: heads, num_key_value_heads: kv, mrope_section, .. } =
        config;
    if !head_dim.is_multiple_of(2) {
        let key = object.name("head_dim");
        return Err(Error::model(format!("{key} is {head_dim}, expected an even number")));
    }
    if heads * head_dim > MAX_WIDTH {
        return Err(Error::model(format!(
            "{} times head_dim is {}, expected at most {MAX_WIDTH}",
            object.name("num_attention_heads"),
            heads * head_dim
        )));
    }
    if !heads.is_multiple_of(*kv) {
        let key = object.name("num_attention_heads");
        return Err(Error::model(format!(
            "{key} is {heads}, expected a multiple of num_key_value_heads, which is {kv}"
        )));
    }
    if mrope_section.iter().sum::<usize>() != head_dim / 2 {
        return Err(Error::model(format!(
            "{} is {mrope_section:?}, expected numbers that sum to half of head_dim, which is {head_dim}",
            object.name("mrope_section")
        )));
    }
    Ok(())
}

/// `rope_theta` and, where it is there, `mrope_section`, from the flat keys, `rope_scaling` and
/// `rope_parameters`, which must not disagree; `types` are the kinds of frequencies that are right.
pub(super) fn rope(object: &Object<'_>, types: &[&str]) -> Result<(f64, Option<[usize; 3]>)> {
    let mut theta: Option<f64> = None;
    let mut section: Option<Vec<usize>> = None;
    let scaling = object.optional_object("rope_scaling")?;
    let parameters = object.optional_object("rope_parameters")?;
    for place in [Some(object.clone()), scaling, parameters].into_iter().flatten() {
        for key in ["rope_type", "type"] {
            place.only_text(key, types)?;
        }
        place.only_flag("mrope_interleaved", true)?;
        if let Some(share) = place.number("partial_rotary_factor", 0.0, 1.0)?
            && share < 1.0
        {
            return Err(place.unsupported("partial_rotary_factor", &["1"], &Value::from(share)));
        }
        if let Some(value) = place.number("rope_theta", 1.0, 1e15)?
            && theta.replace(value).is_some_and(|earlier| earlier.to_bits() != value.to_bits())
        {
            return Err(Error::model(format!("{} contradicts another rope_theta", place.name("rope_theta"))));
        }
        if let Some(value) = place.counts("mrope_section", 0..=4096, 3)?
            && section.replace(value.clone()).is_some_and(|earlier| earlier != value)
        {
            return Err(Error::model(format!(
                "{} contradicts another mrope_section",
                place.name("mrope_section")
            )));
        }
    }
    let theta = theta.ok_or_else(|| object.missing("rope_theta"))?;
    let section = section.map(<[usize; 3]>::try_from).transpose().map_err(|section| {
        Error::model(format!("mrope_section is {section:?}, expected three whole numbers"))
    })?;
    Ok((theta, section))
}

/// Whether the head is the embedding table. Where both places say so, the top wins, as in
/// transformers 5: saved files carry a default at the other place.
pub(super) fn tie(root: &Object<'_>, object: &Object<'_>) -> Result<Option<bool>> {
    let (top, inner) = (root.flag("tie_word_embeddings")?, object.flag("tie_word_embeddings")?);
    Ok(top.or(inner))
}

/// What every decoder's configuration is written with, and the family's `own` keys.
pub(super) fn to_json(config: &TextConfig, own: Value) -> Value {
    let mut shared = json!({
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": config.rms_norm_eps,
        "max_position_embeddings": config.max_position_embeddings,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tie_word_embeddings,
    });
    if let (Value::Object(shared), Value::Object(own)) = (&mut shared, own) {
        shared.extend(own);
    }
    shared
}
