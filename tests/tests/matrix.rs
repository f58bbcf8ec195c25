//! What has to hold on every kernel of tests/kernels.toml: all programs load and are attached in every
//! way that the kernel has, and are replaced there.

use std::{env, fs};

use anyhow::{Context as _, ensure};
use daemon::datapath::{
    attach::Attacher,
    load::{self, Capacities, program},
    probe::{self, AttachMode},
};
use tests::{bpffs::Bpffs, feature::Feature, netns::Netns, trial::trial};

/// Tells in which ways programs can be attached on this kernel, where that is known.
const ATTACH: &str = "BULKHEAD_ATTACH";

const INTERFACES: &str = "link add h0 index 10 type veth peer name p0 index 11\n\
                          link add h1 index 12 type veth peer name p1 index 13\n";

#[test]
fn every_program_loads_on_pinned_maps_of_full_size_and_once_more_on_what_it_finds() {
    trial(|| {
        let pins = Bpffs::new()?;
        for time in ["first", "second"] {
            let ebpf = load::load(Some(pins.path()), &Capacities::default()).with_context(|| format!("{time} time"))?;
            for name in program::ALL {
                let info = ebpf.program(name).with_context(|| format!("no {name}"))?.info()?;
                ensure!(info.size_jitted() > 0, "{name} is interpreted, not compiled");
            }
        }
        Ok(())
    });
}

#[test]
fn the_kernel_has_tcx_or_not_as_is_said_of_it() {
    trial(|| {
        let netns = Netns::new(INTERFACES)?;
        let _inside = netns.enter()?;
        let found = probe::has_tcx()?;
        if let Ok(wanted) = env::var(ATTACH) {
            ensure!(found == (wanted == "tcx"), "tcx: {found}, tests/kernels.toml says {wanted}");
        }
        Ok(())
    });
}

/// So that no test is left out for want of something that is there.
#[test]
fn the_kernel_has_what_is_said_of_it() {
    trial(|| {
        for feature in Feature::ALL {
            println!("{}: {}", feature.name(), feature.is_there());
        }
        Ok(())
    });
}

#[test]
fn programs_are_attached_and_replaced_in_every_way_there_is() {
    trial(|| {
        let netns = Netns::new(INTERFACES)?;
        let _inside = netns.enter()?;
        let mut modes = vec![AttachMode::Clsact];
        modes.extend(probe::has_tcx()?.then_some(AttachMode::Tcx));
        for mode in modes {
            // An interface of its own for each way.
            let (name, index) = if mode == AttachMode::Tcx { ("h1", 12) } else { ("h0", 10) };
            let pins = Bpffs::new()?;
            for time in ["first", "second"] {
                let packet_programs = [program::FROM_POD, program::TO_POD];
                let ebpf = load::load_some(Some(pins.path()), &Capacities::default(), &packet_programs)?;
                let mut attacher = Attacher::new(ebpf, mode, pins.path())?;
                let done = if time == "first" { attacher.attach(name, index) } else { attacher.renew(name, index) };
                done.with_context(|| format!("{}, {time} time", mode.name()))?;
                ensure!(attacher.by_tcx(name, index) == [mode == AttachMode::Tcx; 2], "{}: {time} time", mode.name());
                if mode == AttachMode::Tcx && time == "second" {
                    pins_are_not_taken_for_programs(&mut attacher, &pins)?;
                }
            }
        }
        Ok(())
    });
}

/// A pin without what it is about: here that of another interface's link, under our name. `h1` has programs, `h0` has none by tcx.
fn pins_are_not_taken_for_programs(attacher: &mut Attacher, pins: &Bpffs) -> anyhow::Result<()> {
    let links = load::pin_dir(pins.path()).join("links");
    let [of_h1, of_h0] = ["12", "10"].map(|index| links.join(format!("{index}-{}", program::FROM_POD)));
    fs::rename(&of_h1, &of_h0)?;
    ensure!(attacher.by_tcx("h0", 10) == [false; 2], "a pin was taken for a program");
    fs::rename(&of_h0, &of_h1)?;
    ensure!(attacher.by_tcx("h1", 12) == [true; 2], "what the kernel has was not found");
    Ok(())
}
