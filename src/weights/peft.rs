//! `adapter_config.json`: which matrices a low-rank adapter changes, and by how much.
//!
//! Source: peft 0.21.2, `LoraConfig` (`tuners/lora/config.py`), `check_target_module_exists`
//! (`tuners/tuners_utils.py`) and `get_pattern_key` (`utils/other.py`).

use fancy_regex::Regex;
use serde_json::{Map, Value, json};

use super::names::{HEAD, PATCH_EMBEDDING, from_module};
use crate::format::tensor::shown;
use crate::{Error, Result};

/// Longest `adapter_config.json`, in bytes.
pub(super) const MAX_CONFIG: usize = 1 << 20;

/// Largest rank: beyond it a whole matrix would be smaller for every model there is.
const MAX_RANK: usize = 1 << 14;

/// Longest regular expression.
const MAX_PATTERN: usize = 4096;

/// What stands for every linear layer but the output head (`INCLUDE_LINEAR_LAYERS_SHORTHAND`).
const ALL_LINEAR: &str = "all-linear";

/// Keys that do not change what an adapter computes. Any other key must be off: null, false or empty.
const INERT: [&str; 16] = [
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "loftq_config",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
];

/// Keys that are read by themselves.
const READ: [&str; 7] =
    ["peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules", "exclude_modules"];

/// Starts of training that leave the base weights alone; after others (`pissa`, `olora`, `loftq`,
/// ...) an adapter is relative to weights that are not the checkpoint's.
const INITIALISATIONS: [&str; 2] = ["gaussian", "eva"];

/// The seven linear layers of a decoder layer, what people usually adapt.
pub const DECODER_LINEARS: [&str; 7] =
    ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// Which modules are adapted (`target_modules`).
#[derive(Debug, Clone)]
pub enum Targets {
    /// Modules of these names, or whose names end in a dot and one of these.
    Names(Vec<String>),
    /// Modules whose whole name the regular expression matches.
    Pattern(Pattern),
    /// Every linear layer but the output head; the patch embedding is a convolution to PEFT.
    AllLinear,
}

/// A regular expression in Python's syntax.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    regex: Regex,
}

/// What `adapter_config.json` says.
#[derive(Debug, Clone)]
pub struct PeftConfig {
    rank: usize,
    alpha: f64,
    targets: Targets,
    excluded: Option<Targets>,
    rank_pattern: Vec<(Pattern, usize)>,
    alpha_pattern: Vec<(Pattern, f64)>,
    use_rslora: bool,
}

impl Default for Targets {
    /// [`DECODER_LINEARS`].
    fn default() -> Self {
        Self::Names(DECODER_LINEARS.map(String::from).to_vec())
    }
}

impl Pattern {
    /// Compiles what Python's `re.fullmatch` would take.
    ///
    /// # Errors
    /// [`crate::error::Kind::Model`] for an expression that is none or too long.
    pub fn new(text: &str) -> Result<Self> {
        Self::wrapped(text, &format!("^(?:{text})$"))
    }

    /// A key of `rank_pattern` or `alpha_pattern`, which also matches behind a dot.
    fn ending(text: &str) -> Result<Self> {
        Self::wrapped(text, &format!("^(?:.*\\.)?(?:{text})$"))
    }

    fn wrapped(text: &str, whole: &str) -> Result<Self> {
        if text.len() > MAX_PATTERN {
            return Err(Error::model(format!(
                "a pattern of {} bytes, expected at most {MAX_PATTERN}",
                text.len()
            )));
        }
        let compiled = |pattern: &str| {
            Regex::new(pattern).map_err(|error| {
                Error::model(format!("{} is no regular expression", shown(text))).with_source(error)
            })
        };
        // By itself first: brackets that do not match could match those around it.
        compiled(text)?;
        Ok(Self { text: text.to_owned(), regex: compiled(whole)? })
    }

    fn matches(&self, module: &str) -> Result<bool> {
        self.regex.is_match(module).map_err(|error| {
            Error::model(format!("pattern {} cannot be tried", shown(&self.text))).with_source(error)
        })
    }
}

impl Targets {
    /// As users write them: `all-linear`, names separated by commas, or a regular expression, which
    /// is what has other characters than names have.
    ///
    /// # Errors
    /// [`crate::error::Kind::Model`] for a regular expression that is none.
    pub fn parse(text: &str) -> Result<Self> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ',' | ' ' | '-');
        if text.eq_ignore_ascii_case(ALL_LINEAR) {
            Ok(Self::AllLinear)
        } else if text.contains(is_name) && text.chars().all(is_name) {
            Ok(Self::Names(text.split(',').map(|name| name.trim().to_owned()).collect()))
        } else {
            Pattern::new(text).map(Self::Pattern)
        }
    }

    fn from_value(key: &str, value: &Value) -> Result<Self> {
        match value {
            Value::String(text) if text.eq_ignore_ascii_case(ALL_LINEAR) => Ok(Self::AllLinear),
            Value::String(text) => Pattern::new(text).map_err(|error| at(key, error)).map(Self::Pattern),
            Value::Array(names) => {
                let names: Option<Vec<String>> =
                    names.iter().map(|name| name.as_str().map(str::to_owned)).collect();
                names.map(Self::Names).ok_or_else(|| wrong(key, "names", value))
            }
            _ => Err(wrong(key, "names or a regular expression", value)),
        }
    }

    fn to_value(&self) -> Value {
        match self {
            Self::Names(names) => json!(names),
            Self::Pattern(pattern) => json!(pattern.text),
            Self::AllLinear => json!(ALL_LINEAR),
        }
    }

    /// Whether a module (`model.language_model.layers.0.mlp.up_proj`) is meant.
    ///
    /// # Errors
    /// When a regular expression takes too long.
    pub fn matches(&self, module: &str) -> Result<bool> {
        match self {
            Self::Names(names) => Ok(names.iter().any(|name| {
                let rest = module.strip_suffix(name.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            })),
            Self::Pattern(pattern) => pattern.matches(module),
            Self::AllLinear => {
                Ok(from_module(module).is_some_and(|name| name != HEAD && name != PATCH_EMBEDDING))
            }
        }
    }
}

impl PeftConfig {
    /// A plain adapter: `W + alpha / rank * B A`.
    ///
    /// # Errors
    /// [`crate::error::Kind::Input`] for a rank of 0 or too large, and an `alpha` that is not positive.
    pub fn new(rank: usize, alpha: f64, targets: Targets) -> Result<Self> {
        if !(1..=MAX_RANK).contains(&rank) {
            return Err(Error::input(format!("rank is {rank}, expected 1 to {MAX_RANK}")));
        }
        if !(alpha.is_finite() && alpha > 0.0) {
            return Err(Error::input(format!("alpha is {alpha}, expected a positive number")));
        }
        let (rank_pattern, alpha_pattern) = (Vec::new(), Vec::new());
        Ok(Self { rank, alpha, targets, excluded: None, rank_pattern, alpha_pattern, use_rslora: false })
    }

    /// Parses `adapter_config.json`.
    ///
    /// # Errors
    /// [`crate::error::Kind::Model`] for what is malformed, [`crate::error::Kind::Unsupported`] for
    /// variants that compute something else (`DoRA`, biases, modules saved whole, ...); both name
    /// the key.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_CONFIG {
            return Err(Error::model(format!("{} bytes, expected at most {MAX_CONFIG}", bytes.len())));
        }
        let map: Map<String, Value> = serde_json::from_slice(bytes)
            .map_err(|error| Error::model("no JSON object").with_source(error))?;
        let get = |key: &str| map.get(key).filter(|value| !value.is_null());
        match get("peft_type") {
            Some(Value::String(kind)) if kind == "LORA" => {}
            other => return Err(unsupported("peft_type", "LORA", other.unwrap_or(&Value::Null))),
        }
        check_initialisation(get("init_lora_weights"))?;
        let mut config = Self {
            rank: rank("r", get("r").unwrap_or(&json!(8)))?,
            alpha: number("lora_alpha", get("lora_alpha").unwrap_or(&json!(8)))?,
            targets: Targets::from_value("target_modules", get("target_modules").unwrap_or(&Value::Null))?,
            excluded: get("exclude_modules")
                .map(|it| Targets::from_value("exclude_modules", it))
                .transpose()?,
            rank_pattern: patterns("rank_pattern", get("rank_pattern"), rank)?,
            alpha_pattern: patterns("alpha_pattern", get("alpha_pattern"), number)?,
            use_rslora: false,
        };
        for (key, value) in &map {
            match (key.as_str(), value) {
                (key, _) if READ.contains(&key) => {}
                ("use_rslora", Value::Bool(flag)) => config.use_rslora = *flag,
                ("bias", Value::String(which)) if which == "none" => {}
                ("bias", _) => return Err(unsupported(key, "none", value)),
                (key, _) if INERT.contains(&key) || is_off(value) => {}
                _ => return Err(unsupported(&shown(key), "null, false or nothing", value)),
            }
        }
        Ok(config)
    }

    /// `adapter_config.json` as PEFT writes it, without the keys that are off.
    pub fn to_json(&self) -> Value {
        let ranks: Map<String, Value> =
            self.rank_pattern.iter().map(|(key, rank)| (key.text.clone(), json!(rank))).collect();
        let alphas: Map<String, Value> =
            self.alpha_pattern.iter().map(|(key, alpha)| (key.text.clone(), short(*alpha))).collect();
        json!({
            "peft_type": "LORA",
            "task_type": null,
            "inference_mode": true,
            "r": self.rank,
            "lora_alpha": short(self.alpha),
            "lora_dropout": 0.0,
            "target_modules": self.targets.to_value(),
            "exclude_modules": self.excluded.as_ref().map(Targets::to_value),
            "rank_pattern": ranks,
            "alpha_pattern": alphas,
            "use_rslora": self.use_rslora,
            "use_dora": false,
            "fan_in_fan_out": false,
            "bias": "none",
            "modules_to_save": null,
        })
    }

    /// Whether a module is adapted.
    ///
    /// # Errors
    /// When a regular expression takes too long.
    pub fn is_target(&self, module: &str) -> Result<bool> {
        match &self.excluded {
            Some(excluded) if excluded.matches(module)? => Ok(false),
            _ => self.targets.matches(module),
        }
    }

    /// The rank of a module's factors.
    ///
    /// # Errors
    /// As [`PeftConfig::is_target`].
    pub fn rank_of(&self, module: &str) -> Result<usize> {
        Ok(first(&self.rank_pattern, module)?.unwrap_or(self.rank))
    }

    /// The factor of `B A` in a module: `alpha / r`, or `alpha / sqrt(r)` with `use_rslora`.
    ///
    /// # Errors
    /// As [`PeftConfig::is_target`].
    pub fn scale_of(&self, module: &str) -> Result<f64> {
        let alpha = first(&self.alpha_pattern, module)?.unwrap_or(self.alpha);
        let rank = self.rank_of(module)? as f64;
        Ok(alpha / if self.use_rslora { rank.sqrt() } else { rank })
    }
}

/// The value of the first pattern that matches.
fn first<T: Copy>(patterns: &[(Pattern, T)], module: &str) -> Result<Option<T>> {
    for (pattern, value) in patterns {
        if pattern.matches(module)? {
            return Ok(Some(*value));
        }
    }
    Ok(None)
}

fn patterns<T>(
    key: &str,
    value: Option<&Value>,
    parse: impl Fn(&str, &Value) -> Result<T>,
) -> Result<Vec<(Pattern, T)>> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let map = value.as_object().ok_or_else(|| wrong(key, "an object", value))?;
    map.iter()
        .map(|(pattern, value)| {
            let compiled = Pattern::ending(pattern).map_err(|error| at(key, error))?;
            Ok((compiled, parse(&format!("{key}.{}", shown(pattern)), value)?))
        })
        .collect()
}

fn rank(key: &str, value: &Value) -> Result<usize> {
    let rank = value.as_u64().and_then(|rank| usize::try_from(rank).ok());
    rank.filter(|rank| (1..=MAX_RANK).contains(rank))
        .ok_or_else(|| wrong(key, &format!("a whole number from 1 to {MAX_RANK}"), value))
}

/// An alpha: at 0 an adapter does nothing, below it undoes what it learned.
fn number(key: &str, value: &Value) -> Result<f64> {
    let is_one = |number: &f64| number.is_finite() && *number > 0.0;
    value.as_f64().filter(is_one).ok_or_else(|| wrong(key, "a number above 0", value))
}

fn check_initialisation(value: Option<&Value>) -> Result<()> {
    match value {
        None | Some(Value::Bool(_)) => Ok(()),
        Some(Value::String(name)) if INITIALISATIONS.contains(&name.as_str()) => Ok(()),
        Some(other) => {
            Err(unsupported("init_lora_weights", "true, false or a start that keeps the base weights", other))
        }
    }
}

fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(items) => items.is_empty(),
        _ => false,
    }
}

/// `16` rather than `16.0`, as people write it.
fn short(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 9.0e15 { json!(number as i64) } else { json!(number) }
}

fn wrong(key: &str, expected: &str, got: &Value) -> Error {
    Error::model(format!("{key} is {}, expected {expected}", brief(got)))
}

fn unsupported(key: &str, expected: &str, got: &Value) -> Error {
    Error::unsupported(format!("{key} is {}, expected {expected}", brief(got)))
}

/// A value for an error message; JSON has no control characters.
fn brief(value: &Value) -> String {
    value.to_string().chars().take(80).collect()
}

fn at(key: &str, error: Error) -> Error {
    error.context(key)
}
