//! What the fuzzer starts from, and what it has found: each find is a file in `finds/TARGET/` named by
//! a sentence, and a test of the same name here. `cargo xtask fuzz` says how to add one.

use std::{collections::BTreeSet, fs, panic, path::Path};

use fuzz::TARGETS;

/// A test for each find, and one that no file was forgotten.
macro_rules! finds {
    ($($target:ident { $($name:ident)* })*) => {
        $(mod $target {
            $(#[test]
            fn $name() {
                let target = fuzz::target(stringify!($target)).unwrap();
                (target.run)(include_bytes!(concat!("../finds/", stringify!($target), "/", stringify!($name))));
            })*
        })*

        const FINDS: &[(&str, &str)] = &[$($((stringify!($target), stringify!($name)),)*)*];
    };
}

finds! {}

#[test]
fn every_file_has_its_test() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("finds");
    let mut files = BTreeSet::new();
    for target in TARGETS {
        let Ok(entries) = fs::read_dir(folder.join(target.name)) else { continue };
        for entry in entries {
            let name = entry.unwrap().file_name().into_string().unwrap();
            files.insert((target.name, name));
        }
    }
    let tests: BTreeSet<(&str, String)> = FINDS.iter().map(|(target, name)| (*target, (*name).to_owned())).collect();
    assert_eq!(files, tests, "files in fuzz/finds and lines in finds! differ");
}

#[test]
fn seeds_of_every_target_hold() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{} has nothing to start from", target.name);
        for (number, seed) in seeds.iter().enumerate() {
            assert!(seed.len() <= target.longest, "{} seed {number} has {} bytes", target.name, seed.len());
            if panic::catch_unwind(|| (target.run)(seed)).is_err() {
                panic!("{} seed {number}: {:?}", target.name, String::from_utf8_lossy(seed));
            }
        }
    }
}

/// Cut at every byte, which is what hostile input looks like most often.
#[test]
fn seeds_of_every_target_hold_when_they_are_cut() {
    for target in TARGETS {
        for seed in (target.seeds)().iter().filter(|seed| seed.len() < 300).take(24) {
            for length in 0..seed.len() {
                (target.run)(&seed[..length]);
            }
        }
    }
}

/// libFuzzer refuses a dictionary with a line it does not understand.
#[test]
fn dictionaries_have_no_empty_words() {
    for target in TARGETS {
        assert!(target.words.lines().all(|word| !word.trim().is_empty()), "{}", target.name);
    }
}
