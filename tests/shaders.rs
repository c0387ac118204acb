//! Every kernel's text is WGSL that naga takes, within what WebGPU guarantees on every adapter.
//!
//! The browser tests run the kernels; Chromium has Tint in place of naga.

use naga::valid::{Capabilities, GlobalUse, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module};

/// Workgroup memory that every adapter has.
const WORKGROUP_BYTES: u32 = 16_384;

/// Storage buffers that every adapter binds in one stage.
const STORAGE_BUFFERS: usize = 8;

/// Threads of a workgroup that every adapter runs.
const THREADS: u32 = 256;

#[test]
fn every_shader_is_valid_wgsl_for_naga() {
    let sources = imatch::ops::wgsl::every_source();
    assert!(!sources.is_empty(), "no kernel is listed");
    for (name, text) in sources {
        // burn would take them for a place to put something.
        assert!(!text.contains("{{") && !text.contains('$'), "{name} has a placeholder");
        let module = naga::front::wgsl::parse_str(&text)
            .unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(&text)));
        let info = Validator::new(ValidationFlags::default(), Capabilities::empty())
            .validate(&module)
            .unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(&text)));
        check_entry_point(&name, &module);
        check_workgroup_memory(&name, &module);
        check_bindings(&name, &module, &info);
    }
}

fn check_entry_point(name: &str, module: &Module) {
    let [entry] = module.entry_points.as_slice() else {
        panic!("{name} has {} entry points", module.entry_points.len());
    };
    assert_eq!(entry.name, "main", "{name}");
    let threads: u32 = entry.workgroup_size.iter().product();
    assert!((1..=THREADS).contains(&threads), "{name} has {threads} threads");
}

fn check_workgroup_memory(name: &str, module: &Module) {
    let shared = module.global_variables.iter().filter(|(_, global)| global.space == AddressSpace::WorkGroup);
    let bytes: u32 = shared.map(|(_, global)| module.types[global.ty].inner.size(module.to_ctx())).sum();
    assert!(bytes <= WORKGROUP_BYTES, "{name} takes {bytes} bytes");
}

/// A layout made from the text lacks a binding that the text does not use.
fn check_bindings(name: &str, module: &Module, info: &ModuleInfo) {
    let mut bindings = Vec::new();
    for (handle, global) in module.global_variables.iter() {
        let Some(binding) = &global.binding else { continue };
        assert_eq!(binding.group, 0, "{name}");
        let used = info.get_entry_point(0)[handle];
        assert!(used.intersects(GlobalUse::all()), "{name} does not use binding {}", binding.binding);
        bindings.push(binding.binding as usize);
    }
    bindings.sort_unstable();
    assert!(bindings.iter().copied().eq(0..bindings.len()), "{name} has bindings {bindings:?}");
    assert!(bindings.len() <= STORAGE_BUFFERS, "{name} has {} bindings", bindings.len());
}
