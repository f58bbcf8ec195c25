//! Hostile bytes where exporters read: frames of a spool, settings. Whatever is taken is written as the same thing.

use ::export::{
    config,
    spool::frame::{self, Decoded, Part},
};

/// What settings are made of.
pub const WORDS: &str = include_str!("../words/export.txt");

/// Takes the rest of `bytes` for what the first one says.
///
/// # Panics
///
/// On a defect.
pub fn read(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    match kind % 3 {
        0 => frames(rest),
        1 => frames(&sealed(rest)),
        _ => settings(rest),
    }
}

/// Length and CRC in front of a body, which chance would not find.
fn sealed(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("inputs are short");
    [&length.to_le_bytes()[..], &crc32fast::hash(body).to_le_bytes(), body].concat()
}

fn frames(mut bytes: &[u8]) {
    while let Decoded::Frame(frame, length) = frame::decode(bytes) {
        let frame::Frame { head, payload } = frame;
        let part = Part {
            epoch: head.epoch,
            sequence: head.sequence,
            time_unix_ns: head.time_unix_ns,
            losses: head.losses,
            payload,
        };
        let mut again = Vec::new();
        part.encode(head.number, &mut again);
        // A mark has no payload, whatever lies where one would be.
        if part.payload.is_some() {
            assert_eq!(again, bytes[..length]);
        }
        bytes = &bytes[length..];
    }
}

fn settings(bytes: &[u8]) {
    match config::read(bytes) {
        Ok(settings) => {
            for refused in &settings.refused {
                assert!(!refused.text.is_empty());
            }
            let again = config::read(bytes).expect("it was read before");
            assert_eq!(again.exporters, settings.exporters);
            assert_eq!(again.refused, settings.refused);
        }
        Err(problem) => assert!(!problem.to_string().is_empty()),
    }
}

/// A frame, a mark, settings of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let part = Part { epoch: 1, sequence: 2, time_unix_ns: 3, losses: frame::Losses([4, 5, 6, 7]), payload: None };
    let mut whole = vec![0];
    part.encode(1, &mut whole);
    Part { payload: Some(b"payload".to_vec()), ..part }.encode(1, &mut whole);
    let body = [&[1][..], &whole[whole.len() - 75..]].concat();
    let settings = [
        "exporters:\n- name: a\n  includeFilters: [{verdict: [DROPPED], source_pod: [shop/]}]\n  file: {path: /f, keep: 3}\n",
        "exporters:\n- name: b\n  fieldMask: [uuid]\n  otlp: {endpoint: 'https://c:4317', tls: {caFile: /ca}}\n  spool: {maxMebibytes: 1}\n",
        "exporters: 3\n",
    ];
    let settings = settings.iter().map(|text| [&[2][..], text.as_bytes()].concat());
    [whole, body].into_iter().chain(settings).collect()
}
