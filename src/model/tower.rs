//! One of several vision towers as a module.
//!
//! burn's own derivation for enums puts the variant's name into every parameter's path, where it is no
//! part of any checkpoint's names and would hide the tower from whoever looks for them.

use std::fmt::{self, Display, Formatter};

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
};
use burn::tensor::Device;

use super::internvl::InternVlTower;
use super::linear::{Linear, Linears};
use super::qwen3_vl::Qwen3VlTower;

/// The vision tower of one of the families.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "there is one tower a model")]
pub enum VisionTower {
    /// Of Qwen3-VL.
    Qwen3Vl(Qwen3VlTower),
    /// Of `InternVL`.
    InternVl(InternVlTower),
}

/// The same expression about whichever tower it is.
macro_rules! each {
    ($value:expr, $tower:ident => $body:expr) => {
        match $value {
            VisionTower::Qwen3Vl($tower) => $body,
            VisionTower::InternVl($tower) => $body,
        }
    };
}

/// The same, of a tower made of it.
macro_rules! map {
    ($value:expr, $tower:ident => $body:expr) => {
        match $value {
            VisionTower::Qwen3Vl($tower) => VisionTower::Qwen3Vl($body),
            VisionTower::InternVl($tower) => VisionTower::InternVl($body),
        }
    };
}

pub(super) use each;

impl Module for VisionTower {
    fn collect_devices(&self, devices: Devices) -> Devices {
        each!(self, tower => tower.collect_devices(devices))
    }

    fn fork(self, device: &Device) -> Self {
        map!(self, tower => tower.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        map!(self, tower => tower.to_device(device))
    }

    fn train(self) -> Self {
        map!(self, tower => tower.train())
    }

    fn valid(&self) -> Self {
        map!(self, tower => tower.valid())
    }

    fn materialize(self) -> Self {
        map!(self, tower => tower.materialize())
    }

    fn visit<Visitor: ModuleVisitor>(&self, visitor: &mut Visitor) {
        each!(self, tower => tower.visit(visitor));
    }

    fn map<Mapper: ModuleMapper>(self, mapper: &mut Mapper) -> Self {
        map!(self, tower => tower.map(mapper))
    }
}

impl ModuleDisplayDefault for VisionTower {
    fn content(&self, content: Content) -> Option<Content> {
        each!(self, tower => tower.content(content))
    }

    fn num_params(&self) -> usize {
        Module::num_params(self)
    }
}

impl ModuleDisplay for VisionTower {}

impl Display for VisionTower {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        each!(self, tower => tower.fmt(f))
    }
}

impl Linears for VisionTower {
    fn linears(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut Linear)) {
        each!(self, tower => tower.linears(path, visit));
    }
}
